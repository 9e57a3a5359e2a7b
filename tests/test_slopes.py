"""Gradients that docs/semantics.md defines where there is no derivative: kinks, ties, NaN, sides that are not taken."""

import math

import numpy as np
import pytest

import smelt
from smelt import losses
from tests.cases import FLOATING

NAN = math.nan


def slopes(f, *values, dtype="float32", grad=None):
    """Gradients of the sum of f (or of f with a given gradient) for each input."""
    tensors = [smelt.tensor(np.array(v, np.float64)).to(dtype).detach().requires_grad_() for v in values]
    y = f(*tensors)
    y.backward(smelt.ones_like(y) if grad is None else smelt.tensor(grad).to(dtype))
    results = [t.grad.float().tolist() for t in tensors]
    return results[0] if len(results) == 1 else results


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize(
    ("f", "x", "expected"),
    [
        (smelt.relu, [-1, 0, 2], [0, 0, 1]),
        (smelt.abs, [-1, 0, 2], [-1, 0, 1]),
        (lambda x: smelt.leaky_relu(x, 0.5), [-1, 0, 2], [0.5, 1, 1]),
        (lambda x: smelt.clip(x, -1, 2), [-1.5, -1, 0, 2, 2.5], [0, 1, 1, 1, 0]),
        (lambda x: smelt.maximum(x, 1), [0, 1, 2], [0, 0.5, 1]),
        (lambda x: smelt.minimum(1, x), [0, 1, 2], [1, 0.5, 0]),
        (lambda x: smelt.maximum(x, x), [3, -1], [1, 1]),
        (lambda x: smelt.max(x), [4, 1, 4, 4, 4], [0.25, 0, 0.25, 0.25, 0.25]),
        (lambda x: smelt.min(x), [4, 1, 4, 1], [0, 0.5, 0, 0.5]),
        (lambda x: smelt.max(x, axis=1), [[2, 2], [1, 5]], [[0.5, 0.5], [0, 1]]),
        (lambda x: smelt.max(x, axis=(0, 1)), [[2, 2], [1, 2]], [[1 / 3, 1 / 3], [0, 1 / 3]]),
        (lambda x: smelt.min(x, axis=0, keepdims=True), [[2, 2], [2, 1]], [[0.5, 0], [0.5, 1]]),
        (lambda x: x**2, [0, -3], [0, -6]),
        (lambda x: x**0, [0, 2], [0, 0]),
        (lambda x: x**1, [0, 2], [1, 1]),
        (lambda x: 0**x, [2, 3], [0, 0]),
        (lambda x: smelt.prod(x), [0, 2, 3], [6, 0, 0]),
        (lambda x: smelt.prod(x), [0, 2, 0], [0, 0, 0]),
        (lambda x: x % 2, [5, -3], [1, 1]),
    ],
)
def test_kinks_and_ties(isa, f, x, expected, dtype):
    got = slopes(f, x, dtype=dtype)
    unit = {"bfloat16": 2.0**-8, "float16": 2.0**-11}.get(dtype, 2.0**-24)
    np.testing.assert_allclose(got, expected, rtol=unit, atol=0)  # a third is rounded once, all else is exact


def test_both_sides_share_a_tie(isa):
    assert slopes(smelt.maximum, [1, 2, 3], [1, 3, 2]) == [[0.5, 0, 1], [0.5, 1, 0]]
    assert slopes(smelt.minimum, [1, 2, 3], [1, 3, 2]) == [[0.5, 1, 0], [0.5, 0, 1]]


def test_powers_of_zero_are_flat_in_the_exponent(isa):
    base, exponent = slopes(smelt.pow, [0, 0, -2, 3], [0, 2, 3, 0])
    assert base == [0, 0, 12, 0]
    assert exponent[:2] == [0, 0]
    assert math.isnan(exponent[2])  # the logarithm of a negative base
    assert exponent[3] == pytest.approx(math.log(3), rel=2.0**-22)


def test_losses_at_their_kinks(isa):
    assert slopes(lambda x, t: losses.l1_loss(x, t, "sum"), [1, 2, 3], [1, 3, 2]) == [[0, -1, 1], [0, 1, -1]]
    x, _ = slopes(lambda x, t: losses.huber_loss(x, t, 0.5, "sum"), [0, 0.25, 0.5, 0.75, -2], [0] * 5)
    assert x == [0, 0.25, 0.5, 0.5, -0.5]


@pytest.mark.parametrize("f", [smelt.sign, smelt.floor, smelt.ceil, smelt.round, smelt.trunc, smelt.isnan, smelt.isinf])
def test_steps_are_not_recorded(f):
    assert not f(smelt.ones(3).requires_grad_()).requires_grad


@pytest.mark.parametrize(
    "f", [lambda x: x // 2, lambda x: x > 1, lambda x: x == x, smelt.argmax, smelt.any, lambda x: x.to("int64")]
)
def test_results_without_a_slope_are_not_recorded(f):
    assert not f(smelt.ones(3).requires_grad_()).requires_grad


def test_the_side_that_is_not_taken_gets_nothing(isa):
    """Not even a NaN: the gradient of the side is never multiplied."""
    condition = smelt.tensor([True, False, True])
    a, b = slopes(lambda a, b: smelt.where(condition, a, b), [1, NAN, 3], [NAN, 2, math.inf], grad=[5.0, 7.0, NAN])
    assert a[:2] == [5, 0] and math.isnan(a[2])
    assert b == [0, 7, 0]


@pytest.mark.parametrize(
    "f", [smelt.relu, smelt.abs, lambda x: smelt.clip(x, -1, 1), smelt.exp, smelt.gelu, smelt.tanh]
)
def test_nan_goes_on_backwards(isa, f):
    got = slopes(f, [0.5, NAN, -0.5])
    assert [math.isnan(v) for v in got] == [False, True, False]


@pytest.mark.parametrize(
    "f",
    [
        smelt.softmax,
        smelt.log_softmax,
        lambda x: losses.cross_entropy(x, smelt.tensor([0, 1, 2]), reduction="none"),
        lambda x: losses.cross_entropy(x, smelt.tensor([0, 1, 2]), label_smoothing=0.2, reduction="none"),
        lambda x: x.sum(axis=1),
        lambda x: smelt.cumsum(x),
    ],
)
def test_nan_stays_in_its_row(isa, f, rng):
    x = rng.normal(size=(3, 9))
    clean = np.array(slopes(f, x))
    x[1, 4] = NAN
    got = np.array(slopes(f, x))
    np.testing.assert_array_equal(got[[0, 2]], clean[[0, 2]])


def test_ignored_rows_take_no_gradient(isa):
    x = np.array([[1.0, 2.0, 3.0], [NAN, 1.0, math.inf], [0.0, 0.0, 0.0]])
    labels = smelt.tensor([0, -100, 1])
    got = slopes(lambda x: losses.cross_entropy(x, labels, label_smoothing=0.1), x)
    assert got[1] == [0, 0, 0]
    assert np.isfinite(got).all()
    # They do not count in the mean either.
    alone = slopes(lambda x: losses.cross_entropy(x, smelt.tensor([0, 1]), label_smoothing=0.1), x[[0, 2]])
    assert [got[0], got[2]] == alone


def test_gradients_add_up_over_uses_and_broadcasts(isa):
    """Three uses of one tensor, one through a broadcast: each kernel adds to what is there."""
    got = slopes(lambda x: smelt.relu(x) + x * 3 + smelt.tensor([[1.0], [2.0]]) * x - smelt.exp(x) * 0, [1.0, -1.0])
    assert got == [2 * 1 + 2 * 3 + 3, 0 + 2 * 3 + 3]
