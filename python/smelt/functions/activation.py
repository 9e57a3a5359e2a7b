"""Activations: functions of each element that stand between layers.

Precision is that of the other functions of one element. Errors of gelu and silu are below 4 units in the last place of
their larger part: 3 * 2^-24 |x| for gelu, which cancels, and 2^-127 |x| for silu below -88.
"""

from __future__ import annotations

from .. import _core
from ._types import Tensor

__all__ = ["elu", "gelu", "leaky_relu", "relu", "sigmoid", "silu", "softplus"]

_UNARY = _core.UNARY
_RELU = _UNARY["relu"]
_SILU = _UNARY["silu"]
_SIGMOID = _UNARY["sigmoid"]
_SOFTPLUS = _UNARY["softplus"]


def relu(x: Tensor) -> Tensor:
    """The larger of 0 and each element; NaN stays NaN.

    Args:
        x: tensor of any shape and any dtype but bool.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.relu(smelt.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    return _core.unary(_RELU, x)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x where it is not negative, elsewhere ``slope`` times x.

    Args:
        x: floating tensor of any shape.
        slope: factor of the negative side.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.leaky_relu(smelt.tensor([-2.0, 3.0]), 0.1)
        tensor([-0.2,  3. ])
    """
    return _core.unary_with(_UNARY["leaky_relu"], x, slope, 0)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where it is not negative, elsewhere ``alpha (exp(x) - 1)`` (Clevert et al., 2015).

    Args:
        x: floating tensor of any shape.
        alpha: the limit of the negative side, with its sign turned.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.elu(smelt.tensor([-1.0, 2.0]))
        tensor([-0.6321,  2.    ])
    """
    return _core.unary_with(_UNARY["elu"], x, alpha, 0)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x (Hendrycks and Gimpel, 2016).

    Args:
        x: floating tensor of any shape.
        approximate: ``"none"`` for the exact form, ``"tanh"`` for the usual approximation.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: ``approximate`` is something else.

    Example:
        >>> smelt.gelu(smelt.tensor([-1.0, 1.0]))
        tensor([-0.1587,  0.8413])
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return _core.unary(_UNARY["gelu" if approximate == "none" else "gelu_tanh"], x)


def silu(x: Tensor) -> Tensor:
    """x times sigmoid(x) (Elfwing et al., 2017), also called swish.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.silu(smelt.tensor([0.0, 2.0]))
        tensor([0.    , 1.7616])
    """
    return _core.unary(_SILU, x)


def sigmoid(x: Tensor) -> Tensor:
    """The logistic function 1 / (1 + exp(-x)).

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.sigmoid(smelt.tensor([0.0, 2.0]))
        tensor([0.5   , 0.8808])
    """
    return _core.unary(_SIGMOID, x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) without overflow.

    Args:
        x: tensor of any shape and floating dtype; integers are computed in float32.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.softplus(smelt.tensor([0.0, 100.0]))
        tensor([  0.6931, 100.    ])
    """
    return _core.unary(_SOFTPLUS, x)
