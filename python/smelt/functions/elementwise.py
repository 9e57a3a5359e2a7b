"""Functions of each element by itself.

Accumulation plays no part here: float32 is computed in float32, the half types in float32 with one rounding at the end,
float64 in float64. Errors of the transcendental functions are below 4 units in the last place.
"""

from __future__ import annotations

import numpy as np

from .. import _core
from ._types import Number, Tensor, TensorLike

__all__ = [
    "abs",
    "ceil",
    "clip",
    "cos",
    "erf",
    "exp",
    "expm1",
    "floor",
    "isinf",
    "isnan",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "pow",
    "reciprocal",
    "round",
    "rsqrt",
    "sign",
    "sin",
    "sqrt",
    "square",
    "tanh",
    "trunc",
    "where",
]

_UNARY = _core.UNARY
_BINARY = _core.BINARY
_ABS = _UNARY["abs"]
_SIGN = _UNARY["sign"]
_SQUARE = _UNARY["square"]
_SQRT = _UNARY["sqrt"]
_RSQRT = _UNARY["rsqrt"]
_RECIPROCAL = _UNARY["reciprocal"]
_EXP = _UNARY["exp"]
_EXPM1 = _UNARY["expm1"]
_LOG = _UNARY["log"]
_LOG1P = _UNARY["log1p"]
_SIN = _UNARY["sin"]
_COS = _UNARY["cos"]
_TANH = _UNARY["tanh"]
_ERF = _UNARY["erf"]
_FLOOR = _UNARY["floor"]
_CEIL = _UNARY["ceil"]
_ROUND = _UNARY["round"]
_TRUNC = _UNARY["trunc"]


def abs(x: Tensor) -> Tensor:
    """The absolute value of each element.

    Args:
        x: tensor of any shape and any dtype but bool.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.abs(smelt.tensor([-1.5, 2.0]))
        tensor([1.5, 2. ])
    """
    return _core.unary(_ABS, x)


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1 by the sign of each element; NaN stays NaN.

    Args:
        x: tensor of any shape and any dtype.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.sign(smelt.tensor([-3.0, 0.0, 2.0]))
        tensor([-1.,  0.,  1.])
    """
    return _core.unary(_SIGN, x)


def square(x: Tensor) -> Tensor:
    """Each element times itself.

    Args:
        x: tensor of any shape and any dtype.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.square(smelt.tensor([3.0, -2.0]))
        tensor([9., 4.])
    """
    return _core.unary(_SQUARE, x)


def sqrt(x: Tensor) -> Tensor:
    """The square root of each element; NaN below 0.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.sqrt(smelt.tensor([4.0, 2.0]))
        tensor([2.    , 1.4142])
    """
    return _core.unary(_SQRT, x)


def rsqrt(x: Tensor) -> Tensor:
    """One over the square root of each element.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.rsqrt(smelt.tensor([4.0, 0.25]))
        tensor([0.5, 2. ])
    """
    return _core.unary(_RSQRT, x)


def reciprocal(x: Tensor) -> Tensor:
    """One over each element.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.reciprocal(smelt.tensor([4.0, 0.5]))
        tensor([0.25, 2.  ])
    """
    return _core.unary(_RECIPROCAL, x)


def exp(x: Tensor) -> Tensor:
    """e to the power of each element.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.exp(smelt.tensor([0.0, 1.0]))
        tensor([1.    , 2.7183])
    """
    return _core.unary(_EXP, x)


def expm1(x: Tensor) -> Tensor:
    """e to the power of each element, minus 1, exact near 0.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.expm1(smelt.tensor([0.0, 1.0]))
        tensor([0.    , 1.7183])
    """
    return _core.unary(_EXPM1, x)


def log(x: Tensor) -> Tensor:
    """The natural logarithm of each element; -inf at 0, NaN below.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.log(smelt.tensor([1.0, 10.0]))
        tensor([0.    , 2.3026])
    """
    return _core.unary(_LOG, x)


def log1p(x: Tensor) -> Tensor:
    """The natural logarithm of 1 + x, exact near 0.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.log1p(smelt.tensor([0.0, 9.0]))
        tensor([0.    , 2.3026])
    """
    return _core.unary(_LOG1P, x)


def sin(x: Tensor) -> Tensor:
    """The sine of each element, in radians.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.sin(smelt.tensor([0.0, 1.0]))
        tensor([0.    , 0.8415])
    """
    return _core.unary(_SIN, x)


def cos(x: Tensor) -> Tensor:
    """The cosine of each element, in radians.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.cos(smelt.tensor([0.0, 1.0]))
        tensor([1.    , 0.5403])
    """
    return _core.unary(_COS, x)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent of each element.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.tanh(smelt.tensor([0.0, 1.0]))
        tensor([0.    , 0.7616])
    """
    return _core.unary(_TANH, x)


def erf(x: Tensor) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.erf(smelt.tensor([0.0, 1.0]))
        tensor([0.    , 0.8427])
    """
    return _core.unary(_ERF, x)


def floor(x: Tensor) -> Tensor:
    """The largest whole number not above each element.

    The gradient is 0 and is not recorded.

    Args:
        x: tensor of any shape and any dtype.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.floor(smelt.tensor([1.5, -1.5]))
        tensor([ 1., -2.])
    """
    return _core.unary(_FLOOR, x)


def ceil(x: Tensor) -> Tensor:
    """The smallest whole number not below each element.

    The gradient is 0 and is not recorded.

    Args:
        x: tensor of any shape and any dtype.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.ceil(smelt.tensor([1.5, -1.5]))
        tensor([ 2., -1.])
    """
    return _core.unary(_CEIL, x)


def round(x: Tensor) -> Tensor:
    """The nearest whole number, ties to the even one.

    The gradient is 0 and is not recorded.

    Args:
        x: tensor of any shape and any dtype.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.round(smelt.tensor([0.5, 1.5, 2.4]))
        tensor([0., 2., 2.])
    """
    return _core.unary(_ROUND, x)


def trunc(x: Tensor) -> Tensor:
    """The whole number next to each element towards 0.

    The gradient is 0 and is not recorded.

    Args:
        x: tensor of any shape and any dtype.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.trunc(smelt.tensor([1.5, -1.5]))
        tensor([ 1., -1.])
    """
    return _core.unary(_TRUNC, x)


def clip(x: Tensor, low: Number | None = None, high: Number | None = None) -> Tensor:
    """Each element moved into [low, high]; NaN stays NaN.

    The gradient is 1 inside, the bounds included, and 0 outside.

    Args:
        x: tensor of any shape and dtype but bool.
        low: the lower bound, None for none.
        high: the upper bound, None for none.

    Returns:
        Tensor of the shape and dtype of ``x``; float32 when ``x`` has integers and a bound is a float.

    Raises:
        ValueError: both bounds are None.

    Example:
        >>> smelt.clip(smelt.tensor([-1.0, 0.5, 2.0]), 0, 1)
        tensor([0. , 0.5, 1. ])
    """
    if low is None and high is None:
        raise ValueError("clip: needs at least one bound, got low=None and high=None")
    if not x.dtype.is_floating and any(isinstance(b, (float, np.floating)) for b in (low, high)):
        x = x.float()
    whole = not x.dtype.is_floating
    if low is None:
        low = -(2**63) if whole else -float("inf")
    if high is None:
        high = 2**63 - 1 if whole else float("inf")
    return _core.unary_with(_UNARY["clip"], x, low, high)


def isnan(x: Tensor) -> Tensor:
    """Whether each element is NaN.

    Args:
        x: tensor of any shape and dtype.

    Returns:
        bool tensor of the shape of ``x``.

    Example:
        >>> smelt.isnan(smelt.tensor([1.0, float("nan")]))
        tensor([False,  True])
    """
    return _core.unary(_UNARY["isnan"], x)


def isinf(x: Tensor) -> Tensor:
    """Whether each element is positive or negative infinity.

    Args:
        x: tensor of any shape and dtype.

    Returns:
        bool tensor of the shape of ``x``.

    Example:
        >>> smelt.isinf(smelt.tensor([1.0, float("inf")]))
        tensor([False,  True])
    """
    return _core.unary(_UNARY["isinf"], x)


def maximum(a: TensorLike, b: TensorLike) -> Tensor:
    """The larger of two elements, NaN when either is; equal elements share the gradient.

    Args:
        a: tensor, array or number.
        b: likewise; the shapes broadcast.

    Returns:
        Tensor of the broadcast shape.

    Raises:
        ValueError: the shapes do not broadcast.

    Example:
        >>> smelt.maximum(smelt.tensor([1.0, 5.0]), 3)
        tensor([3., 5.])
    """
    return _core.binary(_BINARY["maximum"], a, b)


def minimum(a: TensorLike, b: TensorLike) -> Tensor:
    """The smaller of two elements, NaN when either is; equal elements share the gradient.

    Args:
        a: tensor, array or number.
        b: likewise; the shapes broadcast.

    Returns:
        Tensor of the broadcast shape.

    Raises:
        ValueError: the shapes do not broadcast.

    Example:
        >>> smelt.minimum(smelt.tensor([1.0, 5.0]), 3)
        tensor([1., 3.])
    """
    return _core.binary(_BINARY["minimum"], a, b)


def pow(x: TensorLike, exponent: TensorLike) -> Tensor:
    """x to the power of ``exponent``, as ``x ** exponent``.

    Args:
        x: tensor, array or number.
        exponent: likewise; the shapes broadcast.

    Returns:
        Tensor of the broadcast shape.

    Raises:
        ValueError: integers to a negative integer power.

    Example:
        >>> smelt.pow(smelt.tensor([1.0, 2.0, 3.0]), 2)
        tensor([1., 4., 9.])
    """
    return _core.binary(_BINARY["pow"], x, exponent)


def where(condition: TensorLike, a: TensorLike, b: TensorLike) -> Tensor:
    """``a`` where the condition holds, ``b`` elsewhere.

    Args:
        condition: bool tensor or array.
        a: tensor, array or number.
        b: likewise; the three shapes broadcast.

    Returns:
        Tensor of the broadcast shape; the gradient flows to the side that was taken.

    Raises:
        TypeError: the condition is not bool.

    Example:
        >>> x = smelt.tensor([-1.0, 2.0])
        >>> smelt.where(x > 0, x, 0)
        tensor([0., 2.])
    """
    return _core.where(condition, a, b)
