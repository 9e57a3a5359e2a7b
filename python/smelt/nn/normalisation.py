"""Layers that normalise: over the batch, the features or groups of channels."""

from __future__ import annotations

from .. import _core, functions
from .._core import Tensor
from ..functions._types import Pair, is_finite_number, pair
from ._checks import epsilon, known, positive
from .module import Module, Parameter, stated

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "GroupNorm",
    "InstanceNorm2d",
    "LayerNorm",
    "RMSNorm",
]


class _BatchNorm(Module):
    _ranks: tuple[int, ...] = ()
    running_mean: Tensor
    running_var: Tensor
    batches: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, activation: str | None = None):
        super().__init__()
        positive(type(self).__name__, channels=channels)
        known(type(self).__name__, activation, ("relu",))
        epsilon(type(self).__name__, eps)
        if not is_finite_number(momentum) or not 0 <= momentum <= 1:
            raise ValueError(f"{type(self).__name__}: momentum must be in [0, 1], got {momentum!r}")
        self.channels, self.eps, self.momentum, self.activation = channels, eps, momentum, activation
        self.weight = Parameter(_core.full([channels], 1, "float32", "cpu"))
        self.bias = Parameter(_core.full([channels], 0, "float32", "cpu"))
        self.register_buffer("running_mean", _core.full([channels], 0, "float32", "cpu"))
        self.register_buffer("running_var", _core.full([channels], 1, "float32", "cpu"))
        self.register_buffer("batches", _core.full([], 0, "int64", "cpu"))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self._ending(x, self.activation, residual)

    def _ending(
        self, x: Tensor, activation: str | None, residual: Tensor | None = None, max_pool: Pair | None = None
    ) -> Tensor:
        if x.ndim not in self._ranks:
            raise ValueError(
                f"{type(self).__name__}: input must have {' or '.join(map(str, self._ranks))} axes, got shape {x.shape}"
            )
        out = _core.batch_norm(
            x, self.weight, self.bias, self.running_mean, self.running_var, self.training, self.momentum, self.eps,
            residual, activation, None if max_pool is None else pair("max_pool", max_pool),
        )  # fmt: skip
        if self.training and x.size:
            _core.assign(self.batches, self.batches + 1)
        return out

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, momentum={self.momentum}{stated(self, activation=None)}"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of features (N, C) or sequences (N, L, C), see :func:`smelt.batch_norm`.

    Args:
        channels: extent of the last axis.
        eps: added to the variance.
        momentum: weight of the batch in the running statistics.
        activation: None or ``"relu"``.

    Attributes:
        weight: (channels,), ones.
        bias: (channels,), zeros.
        running_mean: (channels,), used in evaluation mode.
        running_var: (channels,), likewise.
        batches: how many batches the running statistics have seen.

    Example:
        >>> nn.BatchNorm1d(3)(smelt.randn(8, 3)).shape
        (8, 3)
    """

    _ranks = (2, 3)

    # Its own, for errors of arguments to have the name of the class.
    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, activation: str | None = None):
        super().__init__(channels, eps, momentum, activation)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, H, W, C), see :func:`smelt.batch_norm`.

    Args:
        channels: extent of the last axis.
        eps: added to the variance.
        momentum: weight of the batch in the running statistics.
        activation: None or ``"relu"``.

    Attributes:
        weight: (channels,), ones.
        bias: (channels,), zeros.
        running_mean: (channels,), used in evaluation mode.
        running_var: (channels,), likewise.
        batches: how many batches the running statistics have seen.

    Example:
        >>> nn.BatchNorm2d(3)(smelt.randn(2, 4, 4, 3)).shape
        (2, 4, 4, 3)
    """

    _ranks = (4,)

    # Its own, for errors of arguments to have the name of the class.
    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, activation: str | None = None):
        super().__init__(channels, eps, momentum, activation)


class LayerNorm(Module):
    """Layer normalisation over the last axis, see :func:`smelt.layer_norm`.

    Args:
        features: extent of the last axis.
        eps: added to the variance.

    Attributes:
        weight: (features,), ones.
        bias: (features,), zeros.

    Example:
        >>> nn.LayerNorm(4)(smelt.randn(2, 4)).shape
        (2, 4)
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__()
        positive("LayerNorm", features=features)
        epsilon("LayerNorm", eps)
        self.features, self.eps = features, eps
        self.weight = Parameter(_core.full([features], 1, "float32", "cpu"))
        self.bias = Parameter(_core.full([features], 0, "float32", "cpu"))

    def forward(self, x: Tensor) -> Tensor:
        return _core.layer_norm(x, self.weight, self.bias, self.eps)

    def _after_sum(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        return functions.add_layer_norm(x, residual, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps}"


class RMSNorm(Module):
    """Division by the root mean square of the last axis, see :func:`smelt.rms_norm`.

    Args:
        features: extent of the last axis.
        eps: added to the mean square.

    Attributes:
        weight: (features,), ones.

    Example:
        >>> nn.RMSNorm(4)(smelt.randn(2, 4)).shape
        (2, 4)
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__()
        positive("RMSNorm", features=features)
        epsilon("RMSNorm", eps)
        self.features, self.eps = features, eps
        self.weight = Parameter(_core.full([features], 1, "float32", "cpu"))

    def forward(self, x: Tensor) -> Tensor:
        return _core.rms_norm(x, self.weight, self.eps)

    def _after_sum(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        return functions.add_rms_norm(x, residual, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps}"


class GroupNorm(Module):
    """Normalisation of groups of channels within each image, see :func:`smelt.group_norm`.

    Args:
        groups: how many groups; divides the channels.
        channels: extent of the last axis.
        eps: added to the variance.

    Attributes:
        weight: (channels,), ones.
        bias: (channels,), zeros.

    Example:
        >>> nn.GroupNorm(2, 6)(smelt.randn(2, 4, 4, 6)).shape
        (2, 4, 4, 6)
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5):
        super().__init__()
        positive("GroupNorm", groups=groups, channels=channels)
        epsilon("GroupNorm", eps)
        if channels % groups:
            raise ValueError(f"GroupNorm: groups must divide {channels} channels, got {groups}")
        self.groups, self.channels, self.eps = groups, channels, eps
        self.weight = Parameter(_core.full([channels], 1, "float32", "cpu"))
        self.bias = Parameter(_core.full([channels], 0, "float32", "cpu"))

    def forward(self, x: Tensor) -> Tensor:
        return _core.group_norm(x, self.groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.groups}, {self.channels}, eps={self.eps}"


class InstanceNorm2d(Module):
    """Normalisation of each channel within each image, without parameters: `smelt.group_norm` with a group for each channel.

    Args:
        channels: extent of the last axis.
        eps: added to the variance.

    Example:
        >>> nn.InstanceNorm2d(3)(smelt.randn(2, 4, 4, 3)).shape
        (2, 4, 4, 3)
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        positive("InstanceNorm2d", channels=channels)
        epsilon("InstanceNorm2d", eps)
        self.channels, self.eps = channels, eps

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[-1] != self.channels:
            raise ValueError(f"InstanceNorm2d: input must be (N, H, W, {self.channels}), got shape {tuple(x.shape)}")
        return _core.group_norm(x, self.channels, None, None, self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"
