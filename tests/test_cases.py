"""Values and gradients of every case record, at every instruction set."""

from contextlib import contextmanager

import numpy as np
import pytest

import smelt
from smelt import kernels
from tests.cases import COMPUTE, LEAST, OVERFLOW, UNIT, all_cases
from tests.conftest import devices, isa_levels

CASES = {case.name: case for case in all_cases()}


def round_to(array, dtype):
    """The array with its floats rounded to a dtype, as float64."""
    if array.dtype.kind != "f" or dtype == "float64":
        return array
    return smelt.from_numpy(np.array(array)).to(dtype).to("float64").numpy().reshape(array.shape)


def make_tensor(array, dtype, device="cpu"):
    t = smelt.from_numpy(np.array(array))
    return (t.to(dtype) if array.dtype.kind == "f" else t).to(device)


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def generator(case):
    return np.random.default_rng(sum(map(ord, case.name)))


def check(name, got, expected, bound, dtype):
    """|got - expected| is within the bound and one rounding to a half type; NaN and infinities are at the same places."""
    assert got.shape == np.shape(expected), f"{name}: shape must be {np.shape(expected)}, got {got.shape}"
    if expected.dtype.kind != "f":
        assert got.dtype == str(expected.dtype), f"{name}: dtype must be {expected.dtype}, got {got.dtype}"
        np.testing.assert_array_equal(got.numpy(), expected, err_msg=name)
        return
    assert got.dtype == dtype, f"{name}: dtype must be {dtype}, got {got.dtype}"
    got = got.numpy().astype(np.float64)
    expected = np.where(np.abs(expected) >= OVERFLOW[dtype], np.copysign(np.inf, expected), expected)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected), err_msg=name)
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(got[infinite], expected[infinite], err_msg=name)
    good = np.isfinite(expected)
    got, expected, bound = got[good], expected[good], np.broadcast_to(bound, expected.shape)[good]
    bound = bound + LEAST[COMPUTE[dtype]] * np.any(bound)
    if dtype != COMPUTE[dtype]:
        bound = bound + UNIT[dtype] * (np.abs(expected) + bound) + LEAST[dtype]
    error = np.abs(got - expected)
    worst = (error - bound).max(initial=0)
    assert worst <= 0, f"{name}: error is {error.max():.3g}, {worst:.3g} above the bound"


@contextmanager
def on(level):
    """Runs what follows at an instruction set of the CPU, or on a device; gives the device."""
    if level in devices():
        yield level
    else:
        with kernels.isa(level):
            yield "cpu"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("level", isa_levels() + devices())
def test_values(name, level):
    case = CASES[name]
    for dtype in case.dtypes:
        given = [round_to(x, dtype) for x in case.inputs(generator(case))]
        expected = as_tuple(case.reference(*given))
        with on(level) as device, smelt.no_grad():
            result = as_tuple(case.op(*(make_tensor(x, dtype, device) for x in given)))
            # What comes of no tensor is drawn on the CPU.
            assert all(y.device == device for y in result) or not given or name.startswith("rand")
        assert len(result) == len(expected)
        for got, want in zip(result, expected):
            want = np.asarray(want)
            bound = case.bound(given, want, UNIT[COMPUTE[case.result or dtype]])
            if case.between and dtype != COMPUTE[dtype]:
                bound = bound + UNIT[dtype] * (np.abs(case.between(*given)) + bound)
            check(f"{name} {dtype} {level}", got, want, bound, case.result or dtype)


def gradients(case, given, dtype, weights, device="cpu"):
    tensors = [make_tensor(x, dtype, device) for x in given]
    for i in case.grad:
        tensors[i].requires_grad = True
    result = as_tuple(case.op(*tensors))
    total = None
    for y, w in zip(result, weights):
        if not y.requires_grad:
            continue
        part = (y * make_tensor(w, dtype, device)).sum()
        total = part if total is None else total + part
    total.backward()
    return [tensors[i].grad.numpy().astype(np.float64) for i in case.grad]


def directional(case, given, i, direction, weights, h):
    """The slope of the reference along a direction, by a central difference of fourth order."""

    def value(t):
        moved = list(given)
        moved[i] = given[i] + t * direction
        return sum(
            float((np.asarray(y, np.float64) * w).sum()) for y, w in zip(as_tuple(case.reference(*moved)), weights)
        )

    return (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.grad])
def test_gradient(name):
    """float64 gradients against differences of the reference; float32 against float64 at every instruction set."""
    case = CASES[name]
    rng = generator(case)
    given = case.inputs(rng)
    expected = [np.asarray(y) for y in as_tuple(case.reference(*given))]
    if any(y.dtype.kind == "f" and not np.isfinite(y).all() for y in expected):
        return  # values alone are defined there
    weights = [rng.normal(size=y.shape) if y.dtype.kind == "f" else np.zeros(y.shape) for y in expected]
    wide = gradients(case, given, "float64", weights)
    h = 1e-4
    for i, grad in zip(case.grad, wide):
        assert grad.shape == given[i].shape
        for _ in range(2):
            direction = rng.normal(size=given[i].shape)
            slope = directional(case, given, i, direction, weights, h)
            mine = float((grad * direction).sum())
            # Differences: rounding of the values over h, and h^4 times a fifth derivative of the order of the slope.
            scale = sum(float(np.abs(y * w).sum()) for y, w in zip(expected, weights))
            limit = 20 * 2.0**-53 / h * (scale + 1) + 1e3 * h**4 * (abs(slope) + float(np.abs(grad * direction).sum()))
            assert abs(mine - slope) <= limit, f"{name}: input {i}: slope is {slope:.9g}, the gradient gives {mine:.9g}"
    if "float32" not in case.dtypes:
        return
    rounded = [round_to(x, "float32") for x in given]
    rounded_weights = [round_to(w, "float32") for w in weights]
    exact = gradients(case, rounded, "float64", rounded_weights)
    for level in isa_levels() + devices():
        with on(level) as device:
            narrow = gradients(case, rounded, "float32", rounded_weights, device)
        # An element is a sum of at most n terms, each of some operations.
        n = max((y.size for y in expected), default=1)
        compare(f"{name} {level}", narrow, exact, (n + 64) * UNIT["float32"])
        for dtype in (d for d in case.dtypes if COMPUTE[d] != d):
            halves = [round_to(x, dtype) for x in given]
            half_weights = [round_to(w, dtype) for w in weights]
            wide = gradients(case, halves, "float64", half_weights)
            with on(level) as device:
                narrow = gradients(case, halves, dtype, half_weights, device)
            # A half type rounds what it stores: values forward and gradients between, at most 8 on the way, one unit each
            # that a function may double.
            compare(f"{name} {dtype} {level}", narrow, wide, 16 * UNIT[dtype])


def compare(name, got, expected, units):
    """Gradients of all inputs: each element within some units of itself and of the terms that it is a sum of.

    The terms may cancel: the mean size of the gradient's elements stands for theirs, and where it has but one, the mean
    size over all inputs.
    """
    everything = np.concatenate([np.abs(want).ravel() for want in expected])
    for i, (one, want) in enumerate(zip(got, expected)):
        if want.size == 0:
            continue
        terms = np.abs(want).mean() if want.size > 1 else max(np.abs(want), everything.mean())
        limit = units * (np.abs(want) + terms)
        error = np.abs(one - want)
        assert (error <= limit).all(), f"{name}: input {i}: error {error.max():.3g} above {limit.min():.3g}"
