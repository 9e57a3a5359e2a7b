"""Activations: modules around one function of each element, or along one axis."""

from __future__ import annotations

from .. import functions
from .._core import Tensor
from ..functions._types import is_finite_number
from .module import Module, stated

__all__ = [
    "ELU",
    "GELU",
    "LeakyReLU",
    "LogSoftmax",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


def _number(name: str, value: float) -> float:
    if not is_finite_number(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return value


def _axis(layer: str, axis: int) -> int:
    if not isinstance(axis, int):
        raise ValueError(f"{layer}: axis must be a whole number, got {axis!r}")
    return axis


class ReLU(Module):
    """The larger of 0 and x, see :func:`smelt.relu`.

    Example:
        >>> nn.ReLU()(smelt.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.relu(x)


class LeakyReLU(Module):
    """x, or ``slope`` times x below 0, see :func:`smelt.leaky_relu`.

    Args:
        slope: factor of the negative side.

    Example:
        >>> nn.LeakyReLU(0.1)(smelt.tensor([-2.0, 3.0]))
        tensor([-0.2,  3. ])
    """

    def __init__(self, slope: float = 0.01):
        super().__init__()
        self.slope = _number("LeakyReLU: slope", slope)

    def extra_repr(self) -> str:
        return stated(self, slope=0.01)[2:]

    def forward(self, x: Tensor) -> Tensor:
        return functions.leaky_relu(x, self.slope)


class ELU(Module):
    """x, or ``alpha (exp(x) - 1)`` below 0, see :func:`smelt.elu`.

    Args:
        alpha: the limit of the negative side, with its sign turned.

    Example:
        >>> nn.ELU()(smelt.tensor([-1.0, 2.0]))
        tensor([-0.6321,  2.    ])
    """

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = _number("ELU: alpha", alpha)

    def extra_repr(self) -> str:
        return stated(self, alpha=1.0)[2:]

    def forward(self, x: Tensor) -> Tensor:
        return functions.elu(x, self.alpha)


class GELU(Module):
    """x times the normal distribution function, see :func:`smelt.gelu`.

    Args:
        approximate: ``"none"`` or ``"tanh"``.

    Example:
        >>> nn.GELU()(smelt.tensor([1.0]))
        tensor([0.8413])
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def extra_repr(self) -> str:
        return stated(self, approximate="none")[2:]

    def forward(self, x: Tensor) -> Tensor:
        return functions.gelu(x, self.approximate)


class SiLU(Module):
    """x times sigmoid(x), see :func:`smelt.silu`.

    Example:
        >>> nn.SiLU()(smelt.tensor([2.0]))
        tensor([1.7616])
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.silu(x)


class Sigmoid(Module):
    """The logistic function, see :func:`smelt.sigmoid`.

    Example:
        >>> nn.Sigmoid()(smelt.tensor([0.0]))
        tensor([0.5])
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent, see :func:`smelt.tanh`.

    Example:
        >>> nn.Tanh()(smelt.tensor([1.0]))
        tensor([0.7616])
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.tanh(x)


class Softplus(Module):
    """log(1 + exp(x)), see :func:`smelt.softplus`.

    Example:
        >>> nn.Softplus()(smelt.tensor([0.0]))
        tensor([0.6931])
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.softplus(x)


class Softmax(Module):
    """Exponentials divided by their sum, see :func:`smelt.softmax`.

    Args:
        axis: the axis that will sum to 1.

    Example:
        >>> nn.Softmax()(smelt.tensor([0.0, 0.0]))
        tensor([0.5, 0.5])
    """

    def __init__(self, axis: int = -1):
        super().__init__()
        self.axis = _axis(type(self).__name__, axis)

    def extra_repr(self) -> str:
        return stated(self, axis=-1)[2:]

    def forward(self, x: Tensor) -> Tensor:
        return functions.softmax(x, self.axis)


class LogSoftmax(Module):
    """The logarithm of softmax, see :func:`smelt.log_softmax`.

    Args:
        axis: the axis whose exponentials will sum to 1.

    Example:
        >>> nn.LogSoftmax()(smelt.tensor([0.0, 0.0]))
        tensor([-0.6931, -0.6931])
    """

    def __init__(self, axis: int = -1):
        super().__init__()
        self.axis = _axis(type(self).__name__, axis)

    def extra_repr(self) -> str:
        return stated(self, axis=-1)[2:]

    def forward(self, x: Tensor) -> Tensor:
        return functions.log_softmax(x, self.axis)
