"""Sums, extrema, scans and sorting.

Sums and means of float32 are added in float32, chunk by chunk in a fixed order: the same bits for any number of threads.
"""

from __future__ import annotations

from .. import _core
from ._types import Axis, DTypeLike, Tensor, as_axes, as_axis

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "cumsum",
    "max",
    "mean",
    "min",
    "prod",
    "sort",
    "std",
    "sum",
    "topk",
    "var",
]


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over some axes.

    Args:
        x: tensor of any shape; integers and bool are summed in int64.
        axis: one axis, several, or None for all.
        keepdims: keep the summed axes with extent 1.

    Returns:
        Tensor without the summed axes; 0 over nothing.

    Raises:
        ValueError: an axis does not exist or is named twice.

    Example:
        >>> smelt.tensor([[1.0, 2.0], [3.0, 4.0]]).sum(axis=0)
        tensor([4., 6.])
    """
    return _core.sum(x, as_axes("sum", axis), keepdims)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean over some axes.

    Args:
        x: tensor of any shape; integers are averaged in float32.
        axis: one axis, several, or None for all.
        keepdims: keep the averaged axes with extent 1.

    Returns:
        Tensor without the averaged axes; NaN over nothing.

    Raises:
        ValueError: an axis does not exist or is named twice.

    Example:
        >>> smelt.tensor([[1.0, 2.0], [3.0, 4.0]]).mean()
        tensor(2.5)
    """
    return _core.mean(x, as_axes("mean", axis), keepdims)


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Tensor:
    """The variance over some axes: the mean square of the distance from the mean.

    Args:
        x: tensor of any shape; integers are computed in float32.
        axis: one axis, several, or None for all.
        keepdims: keep the axes with extent 1.
        correction: the divisor is n - correction; 1 gives the unbiased estimate (NumPy's ``ddof``).

    Returns:
        Tensor without the axes; NaN where n - correction is 0.

    Example:
        >>> smelt.tensor([1.0, 3.0]).var(correction=1)
        tensor(2.)
    """
    return _core.cast(_variance(x, axis, keepdims, correction), _result_dtype(x))


def _result_dtype(x: Tensor) -> DTypeLike:
    if _core.autocast_dtype() != "float32" and x.dtype != "float64":
        return "float32"  # the policy of statistics
    return x.dtype if x.dtype.is_floating else "float32"


def _variance(x: Tensor, axis: Axis, keepdims: bool, correction: float) -> Tensor:
    # Of the half types in float32: their distances and sums would be rounded, and float16 overflows.
    x = x if x.dtype == "float64" else _core.cast(x, "float32")
    axes = as_axes("var", axis)
    distance = x - _core.mean(x, axes, True)
    total = _core.sum(distance * distance, axes, keepdims)
    n = x.size // total.size if total.size else 0
    return total / (n - correction) if n != correction else total * float("nan")


def std(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Tensor:
    """The standard deviation over some axes: the square root of the variance.

    Args:
        x: tensor of any shape; integers are computed in float32.
        axis: one axis, several, or None for all.
        keepdims: keep the axes with extent 1.
        correction: the divisor is n - correction; 1 gives the unbiased variance (NumPy's ``ddof``).

    Returns:
        Tensor without the axes.

    Example:
        >>> smelt.tensor([1.0, 3.0]).std()
        tensor(1.)
    """
    root = _core.unary(_core.UNARY["sqrt"], _variance(x, axis, keepdims, correction))
    return _core.cast(root, _result_dtype(x))


def prod(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The product over some axes.

    Args:
        x: tensor of any shape; integers and bool are multiplied in int64.
        axis: one axis, several, or None for all.
        keepdims: keep the axes with extent 1.

    Returns:
        Tensor without the axes; 1 over nothing.

    Example:
        >>> smelt.tensor([2, 3, 4]).prod()
        tensor(24)
    """
    return _core.prod(x, as_axes("prod", axis), keepdims)


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over some axes, NaN if one is; equal maxima share the gradient.

    Args:
        x: tensor of any shape and dtype.
        axis: one axis, several, or None for all.
        keepdims: keep the axes with extent 1.

    Returns:
        Tensor without the axes, of the dtype of ``x``.

    Raises:
        ValueError: over zero elements.

    Example:
        >>> smelt.tensor([[1, 5], [7, 2]]).max(axis=1)
        tensor([5, 7])
    """
    return _core.max(x, as_axes("max", axis), keepdims)


def min(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over some axes, NaN if one is; equal minima share the gradient.

    Args:
        x: tensor of any shape and dtype.
        axis: one axis, several, or None for all.
        keepdims: keep the axes with extent 1.

    Returns:
        Tensor without the axes, of the dtype of ``x``.

    Raises:
        ValueError: over zero elements.

    Example:
        >>> smelt.tensor([[1, 5], [7, 2]]).min(axis=1)
        tensor([1, 2])
    """
    return _core.min(x, as_axes("min", axis), keepdims)


def any(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether at least one element is not zero.

    Args:
        x: tensor of any shape and dtype.
        axis: one axis, several, or None for all.
        keepdims: keep the axes with extent 1.

    Returns:
        bool tensor without the axes; False over nothing.

    Example:
        >>> smelt.tensor([[0, 1], [0, 0]]).any(axis=1)
        tensor([ True, False])
    """
    return _core.any(x, as_axes("any", axis), keepdims)


def all(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every element is not zero.

    Args:
        x: tensor of any shape and dtype.
        axis: one axis, several, or None for all.
        keepdims: keep the axes with extent 1.

    Returns:
        bool tensor without the axes; True over nothing.

    Example:
        >>> smelt.tensor([[1, 1], [0, 1]]).all(axis=1)
        tensor([ True, False])
    """
    return _core.all(x, as_axes("all", axis), keepdims)


def _position(x: Tensor, largest: bool, axis: int | None, keepdims: bool) -> Tensor:
    if axis is None:
        flat = _core.extremum(_core.reshape(x, [-1] if x.size else [0]), largest, 0, False)[1]
        return _core.reshape(flat, [1] * x.ndim) if keepdims else flat
    return _core.extremum(x, largest, as_axis("argmax" if largest else "argmin", axis), keepdims)[1]


def argmax(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the largest element: the first of equal ones, the first NaN if there is one.

    Args:
        x: tensor of any shape and dtype.
        axis: the axis to look along, None for the flattened tensor.
        keepdims: keep the axis with extent 1.

    Returns:
        int64 tensor without the axis.

    Raises:
        ValueError: over zero elements.

    Example:
        >>> smelt.tensor([[1, 5], [7, 2]]).argmax(axis=1)
        tensor([1, 0])
    """
    return _position(x, True, axis, keepdims)


def argmin(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the smallest element: the first of equal ones, the first NaN if there is one.

    Args:
        x: tensor of any shape and dtype.
        axis: the axis to look along, None for the flattened tensor.
        keepdims: keep the axis with extent 1.

    Returns:
        int64 tensor without the axis.

    Raises:
        ValueError: over zero elements.

    Example:
        >>> smelt.tensor([[1, 5], [7, 2]]).argmin()
        tensor(0)
    """
    return _position(x, False, axis, keepdims)


def cumsum(x: Tensor, axis: int = -1) -> Tensor:
    """Running sums along an axis, carried in float64 (int64 for integers).

    Args:
        x: tensor with at least one axis.
        axis: the axis to sum along.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.cumsum(smelt.tensor([1, 2, 3]))
        tensor([1, 3, 6])
    """
    return _core.cumsum(x, as_axis("cumsum", axis))


def _sorted(op: str, x: Tensor, axis: int, descending: bool) -> tuple[Tensor, Tensor]:
    axis, last = as_axis(op, axis), x.ndim - 1
    if x.ndim == 0 or not -x.ndim <= axis <= last:
        raise ValueError(f"{op}: axis must be in [{-x.ndim}, {x.ndim}), got {axis}")
    if axis in (-1, last):
        return _core.sort(x, descending)
    order = list(range(x.ndim))
    order[axis], order[last] = order[last], order[axis]
    values, index = _core.sort(_core.permute(x, order), descending)
    return _core.permute(values, order), _core.permute(index, order)


def sort(x: Tensor, axis: int = -1, descending: bool = False) -> Tensor:
    """The elements in order along an axis; NaN counts as the largest value.

    Args:
        x: tensor with at least one axis.
        axis: the axis to sort along.
        descending: the largest first.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: the axis does not exist.

    Example:
        >>> smelt.sort(smelt.tensor([3.0, 1.0, 2.0]))
        tensor([1., 2., 3.])
    """
    return _sorted("sort", x, axis, descending)[0]


def argsort(x: Tensor, axis: int = -1, descending: bool = False) -> Tensor:
    """The positions that put the elements in order; equal elements keep their order.

    Args:
        x: tensor with at least one axis.
        axis: the axis to sort along.
        descending: the largest first.

    Returns:
        int64 tensor of the shape of ``x``.

    Raises:
        ValueError: the axis does not exist.

    Example:
        >>> smelt.argsort(smelt.tensor([3.0, 1.0, 2.0]))
        tensor([1, 2, 0])
    """
    return _sorted("argsort", x, axis, descending)[1]


def topk(x: Tensor, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements along an axis, in order, and their positions.

    Args:
        x: tensor with at least one axis.
        k: how many, from 0 to the extent of the axis.
        axis: the axis to look along.
        largest: False for the smallest.

    Returns:
        Values and int64 positions, both with extent k along the axis.

    Raises:
        ValueError: ``k`` is larger than the axis, or the axis does not exist.

    Example:
        >>> smelt.topk(smelt.tensor([3.0, 1.0, 2.0]), 2)
        (tensor([3., 2.]), tensor([0, 2]))
    """
    values, index = _sorted("topk", x, axis, largest)
    n = x.shape[axis]
    if not hasattr(k, "__index__"):
        raise TypeError(f"topk: k must be an integer, got {k!r}")
    if not 0 <= k <= n:
        raise ValueError(f"topk: k must be from 0 to {n}, got {k}")
    part = [(0, extent, 1) for extent in x.shape]
    part[axis] = (0, k, 1)
    return _core.slice(values, part), _core.slice(index, part)
