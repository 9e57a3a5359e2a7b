"""Initial values. They are drawn on the CPU from smelt's generator, so every device starts from the same weights."""

from __future__ import annotations

import math

from .. import _core
from .._core import Tensor

__all__ = [
    "constant_",
    "fan_in",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
]


def fan_in(weight: Tensor) -> int:
    """The number of inputs that feed one output of a linear or convolution weight.

    Args:
        weight: (out, in) or (out, rows, columns, in / groups).

    Returns:
        The product of all axes but the first.

    Example:
        >>> nn.init.fan_in(smelt.zeros(8, 3, 3, 4))
        36
    """
    return math.prod(weight.shape[1:])


def _fan_out(weight: Tensor) -> int:
    return math.prod(weight.shape[:-1])


def _write(x: Tensor, value: Tensor) -> Tensor:
    _core.assign(x._detach(), value)
    return x


def uniform_(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Overwrites with uniform random numbers in [low, high).

    Args:
        x: the tensor to fill.
        low: the lower bound.
        high: the upper bound.

    Returns:
        ``x`` itself.

    Example:
        >>> float(nn.init.uniform_(smelt.zeros(100), -1, 1).max()) < 1
        True
    """
    return _write(x, _core.random_uniform(list(x.shape), low, high, x.dtype, "cpu"))


def normal_(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Overwrites with normal random numbers.

    Args:
        x: the tensor to fill.
        mean: their mean.
        std: their standard deviation.

    Returns:
        ``x`` itself.

    Example:
        >>> nn.init.normal_(smelt.zeros(3), std=0.02).shape
        (3,)
    """
    return _write(x, _core.random_normal(list(x.shape), mean, std, x.dtype, "cpu"))


def constant_(x: Tensor, value: float) -> Tensor:
    """Overwrites with one number.

    Args:
        x: the tensor to fill.
        value: the number.

    Returns:
        ``x`` itself.

    Example:
        >>> nn.init.constant_(smelt.zeros(2), 3)
        tensor([3., 3.])
    """
    return _write(x, _core.to_tensor(value))


def kaiming_uniform_(weight: Tensor, gain: float = math.sqrt(2.0)) -> Tensor:
    """Uniform with variance gain^2 / fan_in (He et al., 2015); the gain sqrt(2) suits ReLU.

    Args:
        weight: linear or convolution weight.
        gain: factor of the standard deviation.

    Returns:
        ``weight`` itself.

    Example:
        >>> nn.init.kaiming_uniform_(smelt.zeros(4, 6)).shape
        (4, 6)
    """
    bound = gain * math.sqrt(3.0 / max(fan_in(weight), 1))
    return uniform_(weight, -bound, bound)


def kaiming_normal_(weight: Tensor, gain: float = math.sqrt(2.0)) -> Tensor:
    """Normal with variance gain^2 / fan_in (He et al., 2015); the gain sqrt(2) suits ReLU.

    Args:
        weight: linear or convolution weight.
        gain: factor of the standard deviation.

    Returns:
        ``weight`` itself.

    Example:
        >>> nn.init.kaiming_normal_(smelt.zeros(4, 6)).shape
        (4, 6)
    """
    return normal_(weight, 0.0, gain / math.sqrt(max(fan_in(weight), 1)))


def xavier_uniform_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform with variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio, 2010).

    Args:
        weight: linear or convolution weight.
        gain: factor of the standard deviation.

    Returns:
        ``weight`` itself.

    Example:
        >>> nn.init.xavier_uniform_(smelt.zeros(4, 6)).shape
        (4, 6)
    """
    bound = gain * math.sqrt(6.0 / max(fan_in(weight) + _fan_out(weight), 1))
    return uniform_(weight, -bound, bound)


def xavier_normal_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio, 2010).

    Args:
        weight: linear or convolution weight.
        gain: factor of the standard deviation.

    Returns:
        ``weight`` itself.

    Example:
        >>> nn.init.xavier_normal_(smelt.zeros(4, 6)).shape
        (4, 6)
    """
    return normal_(weight, 0.0, gain * math.sqrt(2.0 / max(fan_in(weight) + _fan_out(weight), 1)))
