"""Layers that pool windows of images (N, H, W, C) and sequences (N, L, C)."""

from __future__ import annotations

from typing import Any

from .. import functions
from .._core import Tensor
from ..functions._types import Pair, pair
from ._checks import sizes
from .module import Module, stated

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "MaxPool1d",
    "MaxPool2d",
]


class _Pool(Module):
    _one = False  # whether the sizes are numbers, not pairs

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        super().__init__()
        layer = type(self).__name__
        sizes(layer, "kernel_size", kernel_size, one=self._one)
        if stride is not None:
            sizes(layer, "stride", stride, one=self._one)
        sizes(layer, "padding", padding, 0, one=self._one)
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

    # Its own, for errors of arguments to have the name of the class.
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        super().__init__(kernel_size, stride, padding)

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

    def extra_repr(self) -> str:
        return super().extra_repr() + stated(self, count_include_pad=True)

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

    # Its own, for errors of arguments to have the name of the class.
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        super().__init__(kernel_size, stride, padding)

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

    # Its own, for errors of arguments to have the name of the class.
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        super().__init__(kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return functions.avg_pool1d(x, self.kernel_size, self.stride, self.padding)


class _AdaptivePool(Module):
    def __init__(self, output_size: Pair):
        super().__init__()
        sizes(type(self).__name__, "output_size", output_size)
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
