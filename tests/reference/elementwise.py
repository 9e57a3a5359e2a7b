"""Functions of each element by itself."""

import math
from fractions import Fraction

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])
BITS = {"int64": 64, "int32": 32, "uint8": 8}


def erf(x):
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x"""
    return _erf(x) if np.size(x) else np.zeros(np.shape(x))


def sigmoid(x):
    """1 / (1 + e^-x)"""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def silu(x):
    """x / (1 + e^-x)"""
    return x * sigmoid(x)


def softplus(x):
    """log(1 + e^x)"""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def elu(x, alpha=1.0):
    """x where x >= 0, else alpha (e^x - 1)"""
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def leaky_relu(x, slope=0.01):
    """x where x >= 0, else slope x"""
    return np.where(x < 0, slope * x, x)


def gelu(x):
    """x Phi(x), where Phi is the normal distribution function"""
    return 0.5 * x * (1 + erf(x * np.sqrt(0.5)))


def gelu_tanh(x):
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))"""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def clip(x, low=-np.inf, high=np.inf):
    """min(max(x, low), high)"""
    return np.where(np.isnan(x), x, np.where(x < low, low, np.where(x > high, high, x)))


def _exactly(f):
    """A function of two rational numbers for arrays of finite floats with b != 0, rounded once."""
    run = np.vectorize(lambda a, b: float(f(Fraction(a), Fraction(b))), otypes=[np.float64])

    def apply(a, b):
        a, b = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
        return run(a, b) if a.size else np.zeros(a.shape)

    return apply


floor_divide = _exactly(lambda a, b: a // b)
remainder = _exactly(lambda a, b: a % b)


def wrap(value, dtype):
    """A whole number modulo 2^bits, in the range of the dtype."""
    bits = BITS[dtype]
    value = int(value) % 2**bits
    return value - 2**bits if dtype != "uint8" and value >= 2 ** (bits - 1) else value


def _integer_power(a, b):
    if b >= 0:
        return a**b
    return int(Fraction(a) ** b) if a else 0


INTEGER = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floor_div": lambda a, b: a // b if b else 0,
    "remainder": lambda a, b: a % b if b else 0,
    "pow": _integer_power,
    "maximum": max,
    "minimum": min,
    "neg": lambda a: -a,
    "abs": abs,
    "sign": lambda a: (a > 0) - (a < 0),
    "square": lambda a: a * a,
    "relu": lambda a: max(a, 0),
    "same": lambda a: a,
}


def integer(name, dtype):
    """The function of Python's unbounded integers, wrapped to the dtype."""
    run = np.vectorize(lambda *values: wrap(INTEGER[name](*map(int, values)), dtype), otypes=[np.dtype(dtype)])
    return lambda *arrays: run(*arrays)
