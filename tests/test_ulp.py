"""Elementwise functions over all exponents of float32: within 2 units in the last place, at every instruction set."""

import math

import numpy as np
import pytest

import smelt
from smelt import kernels
from tests.conftest import isa_levels

MANTISSAS = 997  # of each exponent, from a seed, with both ends
LEAST_NORMAL = 2.0**-126


def sweep():
    """Every exponent of both signs, subnormals included."""
    rng = np.random.default_rng(0)
    exponents = np.arange(0, 255, dtype=np.uint32) << 23
    mantissas = np.concatenate([[0, 1, 2**23 - 1], rng.integers(0, 2**23, MANTISSAS - 3)]).astype(np.uint32)
    x = (exponents[:, None] | mantissas).ravel().view(np.float32)
    return np.concatenate([x, -x])


def erf(x):
    return np.array([math.erf(v) for v in x])


def exp(x):
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(x)


def sigmoid(x):
    return exp(np.minimum(x, 0)) / (1 + exp(-np.abs(x)))


# The function, the same in float64, and its arguments.
FUNCTIONS = {
    "exp": (smelt.exp, exp, lambda x: x),
    "log": (smelt.log, np.log, lambda x: x[x > 0]),
    "tanh": (smelt.tanh, np.tanh, lambda x: x),
    "sigmoid": (smelt.sigmoid, sigmoid, lambda x: x),
    "erf": (smelt.erf, erf, lambda x: x),
}


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("name", FUNCTIONS)
def test_two_units_in_the_last_place(name, level):
    function, reference, domain = FUNCTIONS[name]
    x = domain(sweep())
    exact = reference(x.astype(np.float64))
    with kernels.isa(level):
        got = function(smelt.from_numpy(x)).numpy().astype(np.float64)
    overflow = np.abs(exact) >= (2 - 2.0**-24) * 2.0**127
    np.testing.assert_array_equal(got[overflow], np.copysign(np.inf, exact[overflow]))
    # A result below the least normal number may be 0 or that number's neighbour: exp and sigmoid flush, the others do not.
    normal = ~overflow & (np.abs(exact) >= LEAST_NORMAL)
    unit = np.ldexp(1.0, np.frexp(exact[normal])[1] - 24)
    error = np.abs(got[normal] - exact[normal]) / unit
    assert error.max() <= 2, f"{error.max():.2f} units at {x[normal][error.argmax()]!r}"
    tiny = ~overflow & ~normal
    assert np.all(np.abs(got[tiny] - exact[tiny]) <= LEAST_NORMAL)
    if name in ("tanh", "erf"):  # as exact for subnormals as elsewhere
        assert np.all(np.abs(got[tiny] - exact[tiny]) <= 2 * 2.0**-149)
