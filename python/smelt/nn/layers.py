"""Layers: modules around one function each. Images are (N, H, W, C), sequences (N, L, C)."""

from __future__ import annotations

import math

from .. import _core, functions
from .._core import Tensor
from ..functions._types import Pair, is_finite_number, pair
from . import init
from ._checks import grouped, known, positive, sizes, transposed_windows, windows
from .module import Module, Parameter, stated

__all__ = [
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "Linear",
]


class _Weighted(Module):
    """Weight and bias drawn uniformly from +-1 / sqrt(fan_in), the custom of the field for linear and convolution layers."""

    weight: Parameter
    bias: Parameter | None

    def _make(self, shape: tuple[int, ...], bias: bool, out: int | None = None) -> None:
        self.weight = Parameter(_core.empty(list(shape), "float32", "cpu"))
        init.kaiming_uniform_(self.weight, gain=math.sqrt(1.0 / 3.0))
        self.bias = None
        if bias:
            self.bias = Parameter(_core.empty([shape[0] if out is None else out], "float32", "cpu"))
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
        positive("Linear", in_features=in_features, out_features=out_features)
        known("Linear", activation)
        self.in_features, self.out_features, self.activation = in_features, out_features, activation
        self._make((out_features, in_features), bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._ending(x, self.activation)

    def _ending(self, x: Tensor, activation: str | None) -> Tensor:
        return _core.linear(x, self.weight, self.bias, activation)

    def extra_repr(self) -> str:
        tail = stated(self, activation=None)
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
        positive("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        grouped("Conv2d", in_channels, out_channels, groups)
        sizes("Conv2d", "kernel_size", kernel_size)
        rows, columns = pair("Conv2d: kernel_size", kernel_size)
        windows("Conv2d", stride, padding, dilation, one=False)
        known("Conv2d", activation)
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
            + stated(self, activation=None)
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
        positive("Conv1d", in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, groups=groups)
        grouped("Conv1d", in_channels, out_channels, groups)
        windows("Conv1d", stride, padding, dilation, one=True)
        known("Conv1d", activation)
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
        tail = stated(self, stride=1, padding=0, dilation=1, groups=1, activation=None)
        size = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{size}, bias={self.bias is not None}{tail}"


class ConvTranspose2d(_Weighted):
    """Transposed convolution over images, see :func:`smelt.conv_transpose2d`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: a number or (rows, columns).
        stride: a number or (rows, columns).
        padding: a number or (rows, columns), cut from each side of the output.
        output_padding: a number or (rows, columns), more at the end of the output.
        groups: divides both numbers of channels.
        bias: whether there is one.
        dilation: a number or (rows, columns).
        activation: None or a name as in :func:`smelt.conv2d`.

    Attributes:
        weight: (in_channels, rows, columns, out_channels / groups), as of the convolution that it transposes.
        bias: (out_channels,).

    Example:
        >>> nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1)(smelt.ones(2, 5, 5, 8)).shape
        (2, 10, 10, 3)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
        activation: str | None = None,
    ):
        super().__init__()
        kind = "ConvTranspose2d"
        positive(kind, in_channels=in_channels, out_channels=out_channels, groups=groups)
        grouped(kind, in_channels, out_channels, groups)
        sizes(kind, "kernel_size", kernel_size)
        rows, columns = pair(f"{kind}: kernel_size", kernel_size)
        transposed_windows(kind, stride, padding, output_padding, dilation, one=False)
        known(kind, activation)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, (rows, columns)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.dilation, self.groups, self.activation = dilation, groups, activation
        self._make((in_channels, rows, columns, out_channels // groups), bias, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return functions.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation,
            self.activation,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, output_padding={self.output_padding}, groups={self.groups}, "
            f"bias={self.bias is not None}, dilation={self.dilation}" + stated(self, activation=None)
        )


class ConvTranspose1d(_Weighted):
    """Transposed convolution over sequences, see :func:`smelt.conv_transpose1d`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps of the kernel.
        stride: steps of the output from one input step to the next.
        padding: steps cut from each side of the output.
        output_padding: steps more at the end of the output.
        groups: divides both numbers of channels.
        bias: whether there is one.
        dilation: steps from one tap to the next.
        activation: None or a name as in :func:`smelt.conv1d`.

    Attributes:
        weight: (in_channels, kernel_size, out_channels / groups).
        bias: (out_channels,).

    Example:
        >>> nn.ConvTranspose1d(8, 3, 4, stride=2, padding=1)(smelt.ones(2, 5, 8)).shape
        (2, 10, 3)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int = 1,
        activation: str | None = None,
    ):
        super().__init__()
        kind = "ConvTranspose1d"
        positive(kind, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, groups=groups)
        grouped(kind, in_channels, out_channels, groups)
        transposed_windows(kind, stride, padding, output_padding, dilation, one=True)
        known(kind, activation)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.dilation, self.groups, self.activation = dilation, groups, activation
        self._make((in_channels, kernel_size, out_channels // groups), bias, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return functions.conv_transpose1d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation,
            self.activation,
        )  # fmt: skip

    def extra_repr(self) -> str:
        tail = stated(self, stride=1, padding=0, output_padding=0, groups=1, dilation=1, activation=None)
        size = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{size}, bias={self.bias is not None}{tail}"


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
        positive("Embedding", rows=rows, features=features)
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
        return f"{self.rows}, {self.features}{stated(self, padding_index=None)}"


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

    def extra_repr(self) -> str:
        return stated(self, start_axis=1, end_axis=-1)[2:]
