"""Batch norm folded into the layer before it: values, what is folded and what is kept, saved models."""

import logging

import numpy as np
import pytest

import smelt
from smelt import kernels, nn
from tests.cases import UNIT
from tests.conftest import devices

LAYERS = {
    "linear": (lambda: nn.Linear(5, 6), nn.BatchNorm1d, (7, 5)),
    "linear of sequences": (lambda: nn.Linear(5, 6, bias=False), nn.BatchNorm1d, (2, 7, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding="same", groups=2), nn.BatchNorm1d, (2, 9, 4)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, bias=False), nn.BatchNorm2d, (2, 9, 8, 4)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d, (2, 9, 8, 6)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d, (2, 9, 4)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(6, 6, 4, stride=2, groups=3), nn.BatchNorm2d, (2, 4, 5, 6)),
}


def trained(model, rng):
    """The model with statistics, gains and shifts as a training leaves them."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            values = {
                "running_mean": rng.normal(size=module.channels), "running_var": rng.uniform(0.2, 3, module.channels),
                "weight": rng.normal(size=module.channels), "bias": rng.normal(size=module.channels),
            }  # fmt: skip
            module.load_state_dict({**values, "batches": np.array(3)})
    return model.eval()


def outputs(model, x, dtype="float64"):
    with smelt.no_grad():
        return model.to(dtype)(smelt.from_numpy(x).to(dtype)).to("float64").numpy()


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_and_its_norm(isa, rng, name, activation):
    layer, norm, shape = LAYERS[name]
    model = trained(nn.Sequential(layer(), norm(6, activation=activation)), rng)
    x = rng.normal(size=shape).astype(np.float32)
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    folded = nn.fold_batch_norm(model)
    assert [type(m) for m in folded] == [type(model[0])]
    assert list(folded.state_dict()) == ["0.weight", "0.bias"]
    with smelt.no_grad():
        got, unfolded = (m(smelt.from_numpy(x)).numpy().astype("float64") for m in (folded, model))
    # Sums of at most n products and a bias each, in units of their absolute values: the weights are rounded once more. The
    # unfolded sums are shifted by the mean, and rounded 4 times on the way.
    wide = folded.to("float64")
    magnitude = nn.fold_batch_norm(wide)
    magnitude[0].activation = None
    with smelt.no_grad():
        for p in magnitude.parameters():
            p.copy_(abs(p))
    size = outputs(magnitude, np.abs(x))
    norm_of = model[1]
    shift = np.abs(
        norm_of.running_mean.numpy() * norm_of.weight.numpy() / np.sqrt(norm_of.running_var.numpy() + norm_of.eps)
    )
    terms = int(np.prod(model[0].weight.shape)) + 8
    assert (np.abs(got - outputs(wide, x)) <= terms * UNIT["float32"] * size).all()
    assert (np.abs(got - unfolded) <= 2 * terms * UNIT["float32"] * (size + 2 * shift)).all()
    for key, value in model.state_dict().items():  # the model itself is as it was
        np.testing.assert_array_equal(value.numpy(), before[key])


def network():
    body = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8),
    )  # fmt: skip
    around = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Residual(body, around, "relu"), nn.ConvTranspose2d(8, 4, 2, stride=2), nn.BatchNorm2d(4), nn.GELU(),
        nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5), nn.BatchNorm1d(5),
    )  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_network_is_as_exact_as_before(rng, precision, caplog):
    model = trained(network(), rng)
    x = rng.normal(size=(16, 6, 6, 3)).astype(np.float32)
    with caplog.at_level(logging.INFO, "smelt"):
        folded = nn.fold_batch_norm(model)
    assert caplog.messages == ["fold_batch_norm: folded 5 of 8 batch norms"]
    assert [type(m).__name__ for m in folded] == [
        "BatchNorm2d", "Conv2d", "ReLU", "Residual", "ConvTranspose2d", "GELU", "MaxPool2d", "BatchNorm2d", "Flatten",
        "Linear",
    ]  # fmt: skip
    assert len(folded[3].body) == 4 and len(folded[3].shortcut) == 1
    assert not any(module.training for module in folded.modules())
    with smelt.no_grad(), smelt.autocast(precision):
        got, unfolded = (m(smelt.from_numpy(x)).to("float64").numpy() for m in (folded, model))
    exact = outputs(model, x)
    error, plain = (np.sqrt(np.mean((y - exact) ** 2)) for y in (got, unfolded))
    assert error <= 2 * plain, (error, plain)
    model.to("float32")


def test_what_follows_still_fuses():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
    )
    folded = nn.fold_batch_norm(model)
    assert [how for _, _, how in folded.fusions()] == ["conv2d(activation='gelu')", "conv2d(activation='relu')"]
    with kernels.trace() as names, smelt.no_grad():
        folded(smelt.randn(1, 9, 9, 3))
    assert not any("batch_norm" in name for name in names)


def test_what_is_kept():
    class Own(nn.Conv2d):
        pass

    tied = nn.Conv2d(4, 4, 1)
    hooked = nn.Conv2d(4, 4, 1)
    hooked.register_forward_hook(lambda module, inputs, output: None)
    shared = nn.Conv2d(4, 4, 1)
    shared.weight = tied.weight
    cases = [
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 1, activation="relu"), nn.BatchNorm2d(4)),
        nn.Sequential(Own(4, 4, 1), nn.BatchNorm2d(4)),
        nn.Sequential(hooked, nn.BatchNorm2d(4)),
        nn.Sequential(tied, nn.BatchNorm2d(4), shared, nn.BatchNorm2d(4)),
        nn.Sequential(nn.Sequential(tied), nn.BatchNorm2d(4), tied, nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.ModuleList([nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)]),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.LayerNorm(4)),
    ]
    for model in cases:
        folded = nn.fold_batch_norm(model)
        assert repr(folded) == repr(model) and list(folded.state_dict()) == list(model.state_dict())


def test_two_norms_in_a_row(rng):
    model = trained(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)), rng)
    folded = nn.fold_batch_norm(model)
    x = rng.normal(size=(5, 4)).astype(np.float32)
    assert len(folded) == 1
    want = outputs(model, x)
    assert np.abs(outputs(folded, x) - want).max() <= 100 * UNIT["float32"] * (np.abs(want).max() + 10)


def test_random_numbers_and_the_model_stay():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    smelt.manual_seed(5)
    expected = smelt.randn(3).tolist()
    smelt.manual_seed(5)
    nn.fold_batch_norm(model)
    assert smelt.randn(3).tolist() == expected
    assert model.training and len(model) == 2


def test_a_saved_model(tmp_path, rng):
    model = trained(network(), rng)
    folded = nn.fold_batch_norm(model)
    smelt.save(folded, tmp_path / "folded.safetensors")
    again = smelt.load(tmp_path / "folded.safetensors")
    x = smelt.from_numpy(rng.normal(size=(2, 6, 6, 3)).astype(np.float32))
    with smelt.no_grad():
        np.testing.assert_array_equal(again(x).numpy(), folded(x).numpy())
    another = nn.fold_batch_norm(network())
    another.load_state_dict(folded.state_dict())
    with smelt.no_grad():
        np.testing.assert_array_equal(another(x).numpy(), folded(x).numpy())


def test_a_class_that_makes_its_layers_is_not_saved_folded(tmp_path):
    @smelt.register
    class FoldedNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

        def forward(self, x):
            return self.layers(x)

    folded = nn.fold_batch_norm(FoldedNet())
    assert len(folded.layers) == 1 and folded(smelt.ones(2, 4)).shape == (2, 4)
    with pytest.raises(ValueError, match="save: the constructor of FoldedNet must rebuild the model"):
        smelt.save(folded, tmp_path / "m.safetensors")


@pytest.mark.parametrize("device", ["cpu", *devices()])
def test_on_another_device(rng, device):
    model = trained(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), rng).to(device)
    folded = nn.fold_batch_norm(model)
    assert folded[0].weight.device == device
    x = smelt.from_numpy(rng.normal(size=(5, 4)).astype(np.float32))
    with smelt.no_grad():
        got, want = (m(x.to(device)).to("cpu").numpy() for m in (folded, model))
    assert np.abs(got - want).max() <= 100 * UNIT["float32"] * (np.abs(want).max() + 1)


def test_half_weights(rng):
    model = trained(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), rng)
    folded = nn.fold_batch_norm(model.to("bfloat16"))
    assert folded[0].weight.dtype == smelt.bfloat16 and folded[0].bias.dtype == smelt.bfloat16


def test_it_needs_a_module():
    with pytest.raises(TypeError, match="fold_batch_norm: needs a module, got int"):
        nn.fold_batch_norm(3)
