"""Values where a plain formula loses its digits: large logits, large means, saturated probabilities."""

import numpy as np
import pytest

import smelt
from smelt import losses

LOGITS = [[1000.0, 990.0], [1e7, 1e7 - 1], [-1e7, -1e7 + 2], [3e4, -3e4]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("label", [0, 1])
def test_cross_entropy_of_large_logits(isa, smoothing, label):
    x = np.array(LOGITS)
    shifted = x - x.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    target = np.full((4, 2), smoothing / 2)
    target[:, label] += 1 - smoothing
    t = smelt.tensor(x, dtype="float32", requires_grad=True)
    loss = losses.cross_entropy(t, smelt.full((4,), label, dtype="int64"), label_smoothing=smoothing, reduction="none")
    loss.sum().backward()
    # Some roundings of the parts, which are as large as the difference of the logits.
    bound = 8 * 2.0**-24 * (np.abs(log_p).max(1) + 1)
    assert (np.abs(loss.detach().numpy() - -(target * log_p).sum(1)) <= bound).all()
    assert (np.abs(t.grad.numpy() - (np.exp(log_p) - target)) <= 16 * 2.0**-24).all()


def test_a_small_loss_keeps_its_digits(isa):
    loss = losses.cross_entropy(smelt.tensor([[1000.0, 990.0]]), smelt.tensor([0])).item()
    # log(1 + e^-10): the sum rounds at 2^-24, which is 2^-24 / 4.5e-5 of the result.
    assert loss == pytest.approx(np.log1p(np.exp(-10.0)), abs=2 * 2.0**-24)


@pytest.mark.parametrize("rows, constant", [(100, 1000.1), (100352, 1000.1), (400000, 100.1)])
def test_batch_norm_of_a_constant(isa, rows, constant):
    x, mean, var = smelt.full((rows, 3), constant), smelt.zeros(3), smelt.ones(3)
    y = smelt.batch_norm(x, smelt.ones(3), smelt.zeros(3), mean, var, training=True, momentum=1.0)
    assert (y.numpy() == 0).all()
    np.testing.assert_array_equal(mean.numpy(), np.float32(constant))
    np.testing.assert_array_equal(var.numpy(), 0)


def test_batch_norm_of_a_large_mean_over_many_rows(isa, rng):
    x = (100.1 + 1e-3 * rng.normal(size=(200000, 2))).astype(np.float32)
    y = smelt.batch_norm(
        smelt.from_numpy(x), smelt.ones(2), smelt.zeros(2), smelt.zeros(2), smelt.ones(2), True, eps=1e-30
    )
    exact = (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64)
    # The mean is a float: it is off by at most one unit of 100, in standard deviations, and the variance by its square.
    unit = 2.0**-24 * 128 / x.std(0, dtype=np.float64)
    assert (np.abs(y.numpy() - exact) <= 2 * unit + np.abs(exact) * (unit**2 + 1e-4)).all()


@pytest.mark.parametrize("width", [1, 7, 768, 4096])
def test_layer_norm_of_a_constant(isa, width):
    y = smelt.layer_norm(smelt.full((2, width), 1000.1), smelt.ones(width), smelt.zeros(width))
    assert (y.numpy() == 0).all()


@pytest.mark.parametrize("positive", [None, 3.0])
def test_binary_cross_entropy_keeps_small_gradients(isa, positive):
    x = np.array([-80.0, -20, -17, -1, 0, 1, 17, 20, 80])
    for t in (0.0, 1.0, 0.25):
        pos = positive or 1.0
        sigmoid, other = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
        value = (1 - t) * np.logaddexp(0, x) + pos * t * np.logaddexp(0, -x)
        slope = (1 - t) * sigmoid - pos * t * other
        given = smelt.tensor(x, dtype="float32", requires_grad=True)
        target = smelt.full((9,), t)
        weight = None if positive is None else smelt.tensor(positive)
        loss = losses.binary_cross_entropy_with_logits(given, target, pos_weight=weight, reduction="none")
        loss.sum().backward()
        parts = (1 - t) * np.logaddexp(0, x) + pos * t * np.logaddexp(0, -x)
        # exp is within 2 units after the rounding of its argument, log1p within 4.
        assert (np.abs(loss.detach().numpy() - value) <= 12 * 2.0**-24 * parts).all()
        parts = (1 - t) * sigmoid + pos * t * other
        assert (np.abs(given.grad.numpy() - slope) <= 12 * 2.0**-24 * parts).all()
