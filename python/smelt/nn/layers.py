"""Layers: modules around one function each. Images are (N, H, W, C), sequences (N, L, C)."""

from __future__ import annotations

import math
from typing import Any

from .. import _core, functions
from .._core import Tensor
from ..functions._types import Pair, is_finite_number, pair
from . import init
from .module import Module, Parameter

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "GroupNorm",
    "InstanceNorm2d",
    "LayerNorm",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "RMSNorm",
]


_ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu")


def _positive(layer: str, **sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{layer}: {name} must be a whole number of at least 1, got {value!r}")


def _sizes(layer: str, name: str, value: Any, low: int = 1, one: bool = False) -> None:
    """A number, or a pair unless ``one``, of whole numbers of at least ``low``."""
    numbers = value if isinstance(value, (tuple, list)) and len(value) == 2 and not one else [value]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= low for n in numbers):
        kind = "a whole number" if one else "a whole number or a pair of them,"
        raise ValueError(f"{layer}: {name} must be {kind} of at least {low}, got {value!r}")


def _windows(layer: str, stride: Any, padding: Any, dilation: Any, one: bool) -> None:
    _sizes(layer, "stride", stride, one=one)
    _sizes(layer, "dilation", dilation, one=one)
    if not isinstance(padding, str):
        _sizes(layer, "padding", padding, 0, one)
    elif padding not in ("same", "valid"):
        raise ValueError(f"{layer}: padding must be a number, 'same' or 'valid', got {padding!r}")


def _known(layer: str, activation: Any, names: tuple[str, ...] = _ACTIVATIONS) -> None:
    if activation is not None and activation not in names:
        raise ValueError(f"{layer}: activation must be None or one of {', '.join(names)}, got {activation!r}")


def _epsilon(layer: str, eps: Any) -> None:
    if not is_finite_number(eps) or eps <= 0:
        raise ValueError(f"{layer}: eps must be a finite number above 0, got {eps!r}")


class _Weighted(Module):
    """Weight and bias drawn uniformly from +-1 / sqrt(fan_in), the custom of the field for linear and convolution layers."""

    weight: Parameter
    bias: Parameter | None

    def _make(self, shape: tuple[int, ...], bias: bool) -> None:
        self.weight = Parameter(_core.empty(list(shape), "float32", "cpu"))
        init.kaiming_uniform_(self.weight, gain=math.sqrt(1.0 / 3.0))
        self.bias = None
        if bias:
            self.bias = Parameter(_core.empty([shape[0]], "float32", "cpu"))
            bound = 1.0 / math.sqrt(max(init.fan_in(self.weight), 1))
            init.uniform_(self.bias, -bound, bound)


class Linear(_Weighted):
    """y = activation(x weight^T + bias) over the last axis.

    Args:
        in_features: extent of the input's last axis.
        out_features: extent of the output's last axis.
        bias: whether there is one.
        activation: None or a name as in :func:`smelt.linear`.

    Attributes:
        weight: (out_features, in_features), drawn uniformly from +-1 / sqrt(in_features).
        bias: (out_features,), likewise.

    Example:
        >>> nn.Linear(4, 2)(smelt.ones(3, 4)).shape
        (3, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, activation: str | None = None):
        super().__init__()
        _positive("Linear", in_features=in_features, out_features=out_features)
        _known("Linear", activation)
        self.in_features, self.out_features, self.activation = in_features, out_features, activation
        self._make((out_features, in_features), bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._ending(x, self.activation)

    def _ending(self, x: Tensor, activation: str | None) -> Tensor:
        return _core.linear(x, self.weight, self.bias, activation)

    def extra_repr(self) -> str:
        tail = f", activation='{self.activation}'" if self.activation else ""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}{tail}"


class Conv2d(_Weighted):
    """Convolution over images, see :func:`smelt.conv2d`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: a number or (rows, columns).
        stride: a number or (rows, columns).
        padding: a number, (rows, columns) or ``"same"``.
        dilation: a number or (rows, columns).
        groups: divides both numbers of channels.
        bias: whether there is one.
        activation: None or a name as in :func:`smelt.conv2d`.

    Attributes:
        weight: (out_channels, rows, columns, in_channels / groups).
        bias: (out_channels,).

    Example:
        >>> nn.Conv2d(3, 8, 3, padding=1)(smelt.ones(2, 5, 5, 3)).shape
        (2, 5, 5, 8)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
    ):
        super().__init__()
        _positive("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: groups must divide {in_channels} and {out_channels} channels, got {groups}")
        _sizes("Conv2d", "kernel_size", kernel_size)
        rows, columns = pair("Conv2d: kernel_size", kernel_size)
        _windows("Conv2d", stride, padding, dilation, one=False)
        _known("Conv2d", activation)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, (rows, columns)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.activation = groups, activation
        self._make((out_channels, rows, columns, in_channels // groups), bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._ending(x, self.activation)

    def _ending(self, x: Tensor, activation: str | None) -> Tensor:
        return functions.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, activation
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )


class Conv1d(_Weighted):
    """Convolution over sequences, see :func:`smelt.conv1d`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps of the kernel.
        stride: steps from one output to the next.
        padding: a number or ``"same"``.
        dilation: steps from one tap to the next.
        groups: divides both numbers of channels.
        bias: whether there is one.
        activation: None or a name as in :func:`smelt.conv1d`.

    Attributes:
        weight: (out_channels, kernel_size, in_channels / groups).
        bias: (out_channels,).

    Example:
        >>> nn.Conv1d(3, 8, 5)(smelt.ones(2, 10, 3)).shape
        (2, 6, 8)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
    ):
        super().__init__()
        _positive("Conv1d", in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv1d: groups must divide {in_channels} and {out_channels} channels, got {groups}")
        _windows("Conv1d", stride, padding, dilation, one=True)
        _known("Conv1d", activation)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.activation = groups, activation
        self._make((out_channels, kernel_size, in_channels // groups), bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._ending(x, self.activation)

    def _ending(self, x: Tensor, activation: str | None) -> Tensor:
        return functions.conv1d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, activation
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, bias={self.bias is not None}"


class _BatchNorm(Module):
    _ranks: tuple[int, ...] = ()
    running_mean: Tensor
    running_var: Tensor
    batches: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, activation: str | None = None):
        super().__init__()
        _positive(type(self).__name__, channels=channels)
        _known(type(self).__name__, activation, ("relu",))
        _epsilon(type(self).__name__, eps)
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

    def _ending(self, x: Tensor, activation: str | None, residual: Tensor | None = None) -> Tensor:
        if x.ndim not in self._ranks:
            raise ValueError(
                f"{type(self).__name__}: input must have {' or '.join(map(str, self._ranks))} axes, got shape {x.shape}"
            )
        out = _core.batch_norm(
            x, self.weight, self.bias, self.running_mean, self.running_var, self.training, self.momentum, self.eps,
            residual, activation,
        )  # fmt: skip
        if self.training:
            _core.assign(self.batches, self.batches + 1)
        return out

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, momentum={self.momentum}"


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
        _positive("LayerNorm", features=features)
        _epsilon("LayerNorm", eps)
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
        _positive("RMSNorm", features=features)
        _epsilon("RMSNorm", eps)
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
        _positive("GroupNorm", groups=groups, channels=channels)
        _epsilon("GroupNorm", eps)
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
        _positive("InstanceNorm2d", channels=channels)
        _epsilon("InstanceNorm2d", eps)
        self.channels, self.eps = channels, eps

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[-1] != self.channels:
            raise ValueError(f"InstanceNorm2d: input must be (N, H, W, {self.channels}), got shape {tuple(x.shape)}")
        return _core.group_norm(x, self.channels, None, None, self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"


class Embedding(Module):
    """A trained row of features for each index, see :func:`smelt.embedding`.

    Args:
        rows: how many indices there are.
        features: extent of a row.
        padding_index: a row that stays 0 and takes no gradient.

    Attributes:
        weight: (rows, features), normal.

    Example:
        >>> nn.Embedding(10, 4)(smelt.tensor([[1, 2, 3]])).shape
        (1, 3, 4)
    """

    def __init__(self, rows: int, features: int, padding_index: int | None = None):
        super().__init__()
        _positive("Embedding", rows=rows, features=features)
        if padding_index is not None and (not isinstance(padding_index, int) or not 0 <= padding_index < rows):
            raise ValueError(f"Embedding: padding_index must be in [0, {rows}), got {padding_index!r}")
        self.rows, self.features, self.padding_index = rows, features, padding_index
        self.weight = Parameter(_core.empty([rows, features], "float32", "cpu"))
        init.normal_(self.weight)
        if padding_index is not None:
            self.weight._detach()[padding_index] = 0

    def forward(self, index: Tensor) -> Tensor:
        return functions.embedding(index, self.weight, self.padding_index)

    def extra_repr(self) -> str:
        return f"{self.rows}, {self.features}"


class Dropout(Module):
    """Zeroes elements at random while training, see :func:`smelt.dropout`.

    Args:
        p: probability of a zero, in [0, 1).

    Example:
        >>> nn.Dropout(0.5).eval()(smelt.ones(3))
        tensor([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not is_finite_number(p) or not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), got {p!r}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return functions.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"{self.p}"


class Flatten(Module):
    """Merges axes, by default all but the first.

    Channels stand last here, so a flattened image has its features in (H, W, C) order: weights of a following linear
    layer from a channels-first model need their columns permuted.

    Args:
        start_axis: the first axis to merge.
        end_axis: the last axis to merge.

    Example:
        >>> nn.Flatten()(smelt.ones(2, 3, 4)).shape
        (2, 12)
    """

    def __init__(self, start_axis: int = 1, end_axis: int = -1):
        super().__init__()
        for name, axis in (("start_axis", start_axis), ("end_axis", end_axis)):
            if not isinstance(axis, int):
                raise ValueError(f"Flatten: {name} must be a whole number, got {axis!r}")
        self.start_axis, self.end_axis = start_axis, end_axis

    def forward(self, x: Tensor) -> Tensor:
        return functions.flatten(x, self.start_axis, self.end_axis)


class _Pool(Module):
    _one = False  # whether the sizes are numbers, not pairs

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        super().__init__()
        layer = type(self).__name__
        _sizes(layer, "kernel_size", kernel_size, one=self._one)
        if stride is not None:
            _sizes(layer, "stride", stride, one=self._one)
        _sizes(layer, "padding", padding, 0, one=self._one)
        if any(2 * p > k for p, k in zip(pair(layer, padding), pair(layer, kernel_size))):
            raise ValueError(f"{layer}: padding must be at most half the kernel, {kernel_size}, got {padding}")
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool):
    """The largest element of each window, see :func:`smelt.max_pool2d`.

    Args:
        kernel_size: a number or (rows, columns).
        stride: by default the kernel size.
        padding: at most half the kernel.

    Example:
        >>> nn.MaxPool2d(2)(smelt.ones(1, 4, 4, 3)).shape
        (1, 2, 2, 3)
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Pool):
    """The mean of each window, see :func:`smelt.avg_pool2d`.

    Args:
        kernel_size: a number or (rows, columns).
        stride: by default the kernel size.
        padding: at most half the kernel.
        count_include_pad: whether padding counts in the divisor.

    Example:
        >>> nn.AvgPool2d(2)(smelt.ones(1, 4, 4, 3)).shape
        (1, 2, 2, 3)
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True):
        super().__init__(kernel_size, stride, padding)
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        return functions.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)


class MaxPool1d(_Pool):
    """The largest element of each window of a sequence, see :func:`smelt.max_pool1d`.

    Args:
        kernel_size: steps in a window.
        stride: by default the kernel size.
        padding: at most half the kernel.

    Example:
        >>> nn.MaxPool1d(2)(smelt.ones(1, 4, 3)).shape
        (1, 2, 3)
    """

    _one = True

    def forward(self, x: Tensor) -> Tensor:
        return functions.max_pool1d(x, self.kernel_size, self.stride, self.padding)


class AvgPool1d(_Pool):
    """The mean of each window of a sequence, see :func:`smelt.avg_pool1d`.

    Args:
        kernel_size: steps in a window.
        stride: by default the kernel size.
        padding: at most half the kernel.

    Example:
        >>> nn.AvgPool1d(2)(smelt.ones(1, 4, 3)).shape
        (1, 2, 3)
    """

    _one = True

    def forward(self, x: Tensor) -> Tensor:
        return functions.avg_pool1d(x, self.kernel_size, self.stride, self.padding)


class _AdaptivePool(Module):
    def __init__(self, output_size: Pair):
        super().__init__()
        _sizes(type(self).__name__, "output_size", output_size)
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"{self.output_size}"


class AdaptiveAvgPool2d(_AdaptivePool):
    """Means over windows that give an output of fixed size, see :func:`smelt.adaptive_avg_pool2d`.

    Args:
        output_size: a number or (rows, columns).

    Example:
        >>> nn.AdaptiveAvgPool2d(2)(smelt.ones(1, 7, 5, 3)).shape
        (1, 2, 2, 3)
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveMaxPool2d(_AdaptivePool):
    """Maxima over windows that give an output of fixed size, see :func:`smelt.adaptive_max_pool2d`.

    Args:
        output_size: a number or (rows, columns).

    Example:
        >>> nn.AdaptiveMaxPool2d(2)(smelt.ones(1, 7, 5, 3)).shape
        (1, 2, 2, 3)
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.adaptive_max_pool2d(x, self.output_size)


class GlobalAvgPool2d(Module):
    """The mean of each channel over the image: (N, H, W, C) to (N, C).

    Example:
        >>> nn.GlobalAvgPool2d()(smelt.ones(2, 4, 4, 3)).shape
        (2, 3)
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.global_avg_pool2d(x)


class GlobalMaxPool2d(Module):
    """The largest element of each channel over the image: (N, H, W, C) to (N, C).

    Example:
        >>> nn.GlobalMaxPool2d()(smelt.ones(2, 4, 4, 3)).shape
        (2, 3)
    """

    def forward(self, x: Tensor) -> Tensor:
        return functions.global_max_pool2d(x)
