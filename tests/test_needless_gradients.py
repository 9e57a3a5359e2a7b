"""Gradients that nobody needs are not computed: those of a network's input, and all below frozen layers."""

import numpy as np
import pytest

import smelt
from smelt import kernels, losses, nn, optim

FIRST = {  # layer, input, the kernels of its input gradient
    "conv2d": (lambda: nn.Conv2d(3, 8, 3, padding=1), (4, 6, 6, 3), "conv2d_backward_input"),
    "conv2d of many channels": (lambda: nn.Conv2d(32, 32, 3, padding=1), (4, 6, 6, 32), "conv2d_backward_input"),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), (4, 6, 6, 8), "conv2d_backward_input"),
    "conv1d": (lambda: nn.Conv1d(3, 8, 3), (4, 6, 3), "conv2d_backward_input"),
    "linear": (lambda: nn.Linear(12, 9), (4, 12), "gemm"),
    "layer_norm": (lambda: nn.LayerNorm(12), (4, 12), None),
    "batch_norm": (lambda: nn.BatchNorm1d(12), (4, 12), None),
}


def model_of(name):
    layer, shape, _ = FIRST[name]
    smelt.manual_seed(1)
    first = layer()
    outputs = first(smelt.zeros(*shape)).size // shape[0]
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(outputs, 5)), shape


def count(names, part):
    return sum(part in name for name in names)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("name", [name for name, row in FIRST.items() if row[2]])
def test_the_first_layer_leaves_its_input_gradient_out(rng, name, recorded, precision):
    model, shape = model_of(name)
    optimizer = optim.AdamW(model.parameters())
    x, y = smelt.from_numpy(rng.normal(size=shape).astype(np.float32)), smelt.tensor([0, 1, 2, 3])

    def step(x, y, needed=False):
        x = x * 1 if not needed else (x * 1).requires_grad_()
        with smelt.autocast(precision):
            loss = losses.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = smelt.capture(step) if recorded else step
    with kernels.trace() as names:
        run(x, y)
    if recorded:
        for _ in range(4):
            run(x, y)
        assert run.recording.startswith("recorded"), run.recording
        names = run.plans[0].kernels()
    with kernels.trace() as everything:
        step(x, y, needed=True)
    part = FIRST[name][2]
    assert count(everything, part) == count(names, part) + 1, (names, everything)
    if part != "gemm":
        assert not count(names, part)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_norms_write_no_input_gradient(name):
    """Their kernel does all gradients in one pass: the memory for that of the input is not even asked for."""
    layer, x = model_of(name)[0][0], smelt.randn(1 << 14, 12)
    more = []
    for needed in (False, True):
        given = x.copy().requires_grad_() if needed else x
        y = layer(given)
        gradient = smelt.ones(*y.shape)
        smelt.reset_peak_memory()
        before = smelt.memory_stats()["in_use"]
        y.backward(gradient)
        more.append(smelt.memory_stats()["peak_in_use"] - before)
    assert more[0] + 0.99 * x.nbytes <= more[1]


def test_frozen_layers_take_no_gradient(rng):
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    model = nn.Sequential(nn.freeze(body), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 5))
    x, y = smelt.randn(4, 6, 6, 3), smelt.tensor([0, 1, 2, 3])
    loss = losses.cross_entropy(model(x), y)
    with kernels.trace() as names:
        loss.backward()
    assert not count(names, "conv2d_backward_input") and not count(names, "batch_norm_backward")
    assert count(names, "conv2d_backward_weight") == 1


def test_a_frozen_weight_takes_none(rng):
    for layer, x, kernel in [
        (nn.Conv2d(4, 4, 3), smelt.randn(1, 5, 5, 4), "conv2d_backward_weight"),
        (nn.ConvTranspose2d(4, 4, 3), smelt.randn(1, 5, 5, 4), "conv2d_backward_weight"),
    ]:
        layer.weight.requires_grad = False
        y = layer(x.requires_grad_())
        with kernels.trace() as names:
            y.sum().backward()
        assert not count(names, kernel) and layer.weight.grad is None and x.grad is not None
