"""Transposed convolution against the convolution that it is the transpose of, in steps that train, and wrong input."""

import numpy as np
import pytest

import smelt
from smelt import kernels, nn
from tests.conftest import devices

SHAPES = [  # image (N, H, W, C), kernel (K, R, S, C / groups), options of the convolution
    ((2, 8, 9, 3), (5, 3, 3, 3), {}),
    ((2, 9, 8, 4), (6, 3, 2, 4), {"stride": 2, "padding": 1}),
    ((1, 11, 10, 6), (4, 3, 3, 3), {"stride": (3, 2), "padding": (1, 2), "dilation": (2, 1), "groups": 2}),
    ((3, 7, 7, 8), (8, 3, 3, 1), {"stride": 2, "padding": 1, "groups": 8}),
    ((2, 20, 20, 32), (40, 3, 3, 32), {"padding": 1}),
]


def _pairs(options, name, default):
    value = options.get(name, default)
    return value if isinstance(value, tuple) else (value, value)


def _rest(image, kernel, options):
    """Rows and columns that the last window of the convolution leaves over."""
    stride, pad, gap = _pairs(options, "stride", 1), _pairs(options, "padding", 0), _pairs(options, "dilation", 1)
    return tuple((image[1 + i] + 2 * pad[i] - gap[i] * (kernel[1 + i] - 1) - 1) % stride[i] for i in range(2))


@pytest.mark.parametrize("image, kernel, options", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_the_transpose_of_the_convolution(isa, rng, image, kernel, options, dtype):
    """<conv(x), y> = <x, conv_transpose(y)>"""
    x, w = (smelt.tensor(rng.normal(size=s), dtype=dtype) for s in (image, kernel))
    forward = smelt.conv2d(x, w, **options)
    y = smelt.tensor(rng.normal(size=forward.shape), dtype=dtype)
    back = smelt.conv_transpose2d(y, w, output_padding=_rest(image, kernel, options), **options)
    assert back.shape == image
    a, b = (forward.numpy().astype("float64"), back.numpy().astype("float64"))
    left, right = (a * y.numpy()).sum(), (b * x.numpy()).sum()
    terms = float((np.abs(a) * np.abs(y.numpy())).sum() + (np.abs(b) * np.abs(x.numpy())).sum())
    unit = 2.0**-24 if dtype == "float32" else 2.0**-53
    assert abs(left - right) <= 3 * (np.prod(kernel[1:]) * kernel[0] + 3) * unit * terms


def test_no_kernel_but_the_convolutions(rng):
    x, w, b = (smelt.randn(*s).requires_grad_() for s in ((2, 5, 5, 6), (6, 4, 4, 3), (3,)))
    with kernels.trace() as forward:
        y = smelt.conv_transpose2d(x, w, b, stride=2, padding=1)
    with kernels.trace() as backward:
        y.sum().backward()
    assert len(forward) == 2 and "conv2d_backward_input" in forward[1]  # the bias in every pixel, the sums
    slots = ["conv2d_backward_weight", "reduce", "conv2d"]
    assert all(any(name.split("_", 1)[1].startswith(slot) for name in backward) for slot in slots)
    assert not any("conv2d_backward_input" in name for name in backward)


def _model():
    smelt.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding=1, activation="relu"),
        nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, activation="gelu"),
        nn.ConvTranspose2d(6, 2, 3, padding=1),
    )


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_recorded_steps_have_the_bits_of_eager_ones(rng, precision):
    batches = [smelt.from_numpy(rng.normal(size=(3, 8, 8, 2)).astype("float32")) for _ in range(5)]
    results = []
    for record in (False, True):
        model = _model()
        optimizer = smelt.optim.AdamW(model.parameters(), lr=1e-2)

        def step(x, model=model, optimizer=optimizer):
            with smelt.autocast(precision):
                y = model(x)
            loss = smelt.losses.mse_loss(y, x)
            loss.backward()
            optimizer.step()
            return loss

        run = smelt.capture(step) if record else step
        results.append([run(x).item() for x in batches])
        if record:
            assert run.recording.startswith("recorded"), run.recording
    assert results[0] == results[1]
    assert len(set(results[0])) == len(batches)


@pytest.mark.parametrize("device", devices())
def test_layers_on_another_device(rng, device):
    x = rng.normal(size=(1, 4, 4, 2)).astype("float32")
    here = _model()
    there = _model().to(device)
    for model, t in ((here, smelt.from_numpy(x)), (there, smelt.from_numpy(x).to(device))):
        model(t).sum().backward()
    for a, b in zip(here.parameters(), there.parameters()):
        got, want = b.grad.to("cpu").numpy(), a.grad.numpy()
        # Sums of at most 128 products in each of three layers, in another order; the terms are of the gradient's size.
        assert np.abs(got - want).max() <= 3 * 128 * 2.0**-24 * np.abs(want).max()


def test_autocast_gives_each_gradient_the_dtype_of_its_operand(rng):
    x, w, b = (
        smelt.from_numpy(rng.normal(size=s).astype("float32")).requires_grad_()
        for s in ((2, 4, 5, 6), (6, 4, 4, 3), (3,))
    )
    with smelt.autocast("bf16"):
        y = smelt.conv_transpose2d(x, w, b, stride=2, padding=1)
    assert y.dtype == smelt.bfloat16
    y.float().sum().backward()
    assert {t.grad.dtype for t in (x, w, b)} == {smelt.float32}
    assert (b.grad.numpy() == 2 * 8 * 10).all()


def test_gradients_add_up(rng):
    x, w = smelt.randn(1, 3, 3, 2).requires_grad_(), smelt.randn(2, 3, 3, 4).requires_grad_()
    once = smelt.conv_transpose2d(x, w)
    once.sum().backward()
    first = [t.grad.numpy().copy() for t in (x, w)]
    for t in (x, w):
        t.grad = None
    (smelt.conv_transpose2d(x, w).sum() + smelt.conv_transpose2d(x, w).sum()).backward()
    for t, g in zip((x, w), first):
        np.testing.assert_array_equal(t.grad.numpy(), 2 * g)


def test_no_gradient_where_nobody_needs_it(rng):
    x, w = smelt.randn(1, 3, 3, 2), smelt.randn(2, 3, 3, 4).requires_grad_()
    y = smelt.conv_transpose2d(x, w)
    with kernels.trace() as names:
        y.sum().backward()
    assert any("conv2d_backward_weight" in name for name in names)
    assert not any("conv2d" in name and "backward" not in name for name in names)


IMAGE = smelt.ones(1, 4, 4, 3)
ERRORS = [
    (ValueError, r"conv_transpose2d: weight has 5 input channels, input has 3", IMAGE, (5, 3, 3, 2), {}),
    (ValueError, r"conv_transpose2d: input has 4 channels, weight has 3; images are \(N, H, W, C\), got \(1, 3, 5, 4\)",
     smelt.ones(1, 3, 5, 4), (3, 3, 3, 2), {}),
    (ValueError, r"conv_transpose2d: groups must divide the input channels, got 2 groups and 3",
     IMAGE, (3, 3, 3, 2), {"groups": 2}),
    (ValueError, r"conv_transpose2d: groups must be at least 1, got 0", IMAGE, (3, 3, 3, 2), {"groups": 0}),
    (ValueError, r"conv_transpose2d: stride must be from 1 to 2147483647, got 0", IMAGE, (3, 3, 3, 2), {"stride": 0}),
    (ValueError, r"conv_transpose2d: dilation must be from 1 to 2147483647, got -1", IMAGE, (3, 3, 3, 2), {"dilation": -1}),
    (ValueError, r"conv_transpose2d: padding must be from 0 to 2147483647, got -1", IMAGE, (3, 3, 3, 2), {"padding": -1}),
    (ValueError, r"conv_transpose2d: padding must leave at least one of the output's rows, got 0 with padding 3",
     IMAGE, (3, 3, 3, 2), {"padding": 3}),
    (ValueError, r"conv_transpose2d: output_padding must be from 0 to 1, below stride or dilation, got 2",
     IMAGE, (3, 3, 3, 2), {"stride": 2, "output_padding": 2}),
    (ValueError, r"conv_transpose2d: kernel must have at least one row and column, got 0x3", IMAGE, (3, 0, 3, 2), {}),
    (ValueError, r"conv_transpose2d: input must have at least one row and column, got 0 rows",
     smelt.ones(1, 0, 4, 3), (3, 3, 3, 2), {}),
    (ValueError, r"conv_transpose2d: weight must be \(in_channels, rows, columns, out_channels . groups\), got shape .3, 3\)",
     IMAGE, (3, 3), {}),
    (ValueError, r"conv_transpose2d: input must be \(N, H, W, C\), got shape \(4, 3\)", smelt.ones(4, 3), (3, 3, 3, 2), {}),
    (ValueError, r"conv_transpose2d: bias must be \(4,\), got \(2,\)", IMAGE, (3, 3, 3, 4), {"bias": smelt.ones(2)}),
    (TypeError, r"conv_transpose2d: input is float64, weight is float32", IMAGE.double(), (3, 3, 3, 2), {}),
    (ValueError, r"conv_transpose2d: padding: needs one number or a pair, got 'same'",
     IMAGE, (3, 3, 3, 2), {"padding": "same"}),
    (TypeError, r"conv_transpose2d: groups must be a whole number, got 1.5", IMAGE, (3, 3, 3, 2), {"groups": 1.5}),
]  # fmt: skip


@pytest.mark.parametrize("kind, message, x, weight, options", ERRORS)
def test_wrong_input(kind, message, x, weight, options):
    with pytest.raises(kind, match=message):
        smelt.conv_transpose2d(x, smelt.ones(weight), **options)


def test_wrong_input_of_sequences():
    with pytest.raises(ValueError, match=r"conv_transpose1d: input must be \(N, L, C\), got shape \(4, 3\)"):
        smelt.conv_transpose1d(smelt.ones(4, 3), smelt.ones(3, 3, 3))
    with pytest.raises(ValueError, match="conv_transpose1d: weight has 2 input channels, input has 3"):
        smelt.conv_transpose1d(smelt.ones(1, 4, 3), smelt.ones(2, 3, 3))
    with pytest.raises(TypeError, match="conv_transpose1d: stride must be a whole number, got tuple"):
        smelt.conv_transpose1d(smelt.ones(1, 4, 3), smelt.ones(3, 3, 3), stride=(1, 2))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"groups": 4}, "ConvTranspose2d: groups must divide 6 and 3 channels, got 4"),
        (
            {"output_padding": 2, "stride": 2},
            "ConvTranspose2d: output_padding must be below stride or dilation, 2, got 2",
        ),
        ({"stride": 0}, "ConvTranspose2d: stride must be"),
        ({"padding": "same"}, "ConvTranspose2d: padding must be"),
        ({"activation": "swish"}, "ConvTranspose2d: activation must be"),
    ],
)
def test_wrong_layers(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.ConvTranspose2d(6, 3, 4, **arguments)


def test_an_error_names_the_layer():
    model = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(4, 2, 3))
    with pytest.raises(ValueError, match=r"layer 1: conv_transpose2d: weight has 4 input channels, input has 3"):
        model(smelt.ones(1, 5, 4, 3))
    assert model.check((1, 5, 4, 3)) == ["layer 1: conv_transpose2d: weight has 4 input channels, input has 3"]


def test_a_saved_model_has_it(tmp_path):
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1, groups=1), nn.ReLU())
    smelt.save(model, tmp_path / "m.safetensors")
    again = smelt.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again(IMAGE).detach().numpy(), model(IMAGE).detach().numpy())
