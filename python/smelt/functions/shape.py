"""Views and rearrangements. ``reshape`` and slices along the first axis share memory; everything else copies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .. import _core
from ._types import Tensor, as_axes, as_axis, as_shape, as_tensors, as_whole, pair

__all__ = [
    "broadcast_to",
    "concat",
    "expand_dims",
    "flatten",
    "flip",
    "moveaxis",
    "pad",
    "permute",
    "reshape",
    "roll",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "to_nchw",
    "to_nhwc",
    "tril",
    "triu",
]


def _axis(op: str, axis: int, ndim: int) -> int:
    axis = as_axis(op, axis)
    if not -ndim <= axis < ndim:
        raise ValueError(f"{op}: axis must be in [{-ndim}, {ndim}), got {axis}")
    return axis % ndim


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; shares memory.

    Args:
        x: tensor of any shape.
        shape: extents, as several arguments or one sequence; one may be -1 and is worked out.

    Returns:
        Tensor of ``shape``.

    Raises:
        ValueError: the number of elements would change.

    Example:
        >>> smelt.arange(6).reshape(2, -1)
        tensor([[0, 1, 2],
                [3, 4, 5]])
    """
    return _core.reshape(x, as_shape(shape))


def flatten(x: Tensor, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """The axes from ``start_axis`` to ``end_axis`` as one; shares memory.

    Args:
        x: tensor of any shape.
        start_axis: the first axis to merge.
        end_axis: the last axis to merge.

    Returns:
        Tensor with the axes merged, (1,) for a tensor of shape ().

    Raises:
        ValueError: an axis does not exist.

    Example:
        >>> smelt.zeros(2, 3, 4).flatten(1).shape
        (2, 12)
    """
    if x.ndim == 0:
        return _core.reshape(x, [1])
    start, end = _axis("flatten", start_axis, x.ndim), _axis("flatten", end_axis, x.ndim)
    if start > end:
        raise ValueError(f"flatten: start_axis must not be after end_axis, got {start_axis} and {end_axis}")
    merged = math.prod(x.shape[start : end + 1])
    return _core.reshape(x, [*x.shape[:start], merged, *x.shape[end + 1 :]])


def squeeze(x: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    """Without axes of extent 1; shares memory.

    Args:
        x: tensor of any shape.
        axis: which of them, None for all.

    Returns:
        Tensor without these axes.

    Raises:
        ValueError: a named axis does not have extent 1.

    Example:
        >>> smelt.zeros(1, 3, 1).squeeze().shape
        (3,)
    """
    axes = range(x.ndim) if axis is None else [_axis("squeeze", a, x.ndim) for a in as_axes("squeeze", axis) or ()]
    for a in axes:
        if axis is not None and x.shape[a] != 1:
            raise ValueError(f"squeeze: axis {a} must have extent 1, shape is {x.shape}")
    return _core.reshape(x, [n for i, n in enumerate(x.shape) if not (i in axes and n == 1)])


def expand_dims(x: Tensor, axis: int) -> Tensor:
    """With a new axis of extent 1 before position ``axis``; shares memory.

    Args:
        x: tensor of any shape.
        axis: position of the new axis in the result.

    Returns:
        Tensor with one axis more.

    Raises:
        ValueError: the position does not exist.

    Example:
        >>> smelt.zeros(3).expand_dims(0).shape
        (1, 3)
    """
    at = _axis("expand_dims", axis, x.ndim + 1)
    return _core.reshape(x, [*x.shape[:at], 1, *x.shape[at:]])


def broadcast_to(x: Tensor, *shape: Any) -> Tensor:
    """Repeated along new axes and those of extent 1 until the shape is reached.

    Args:
        x: tensor whose shape broadcasts to ``shape``.
        shape: extents, as several arguments or one sequence; -1 keeps an extent.

    Returns:
        Tensor of ``shape``, a copy.

    Raises:
        ValueError: the shape does not broadcast.

    Example:
        >>> smelt.tensor([1, 2]).broadcast_to(2, 2)
        tensor([[1, 2],
                [1, 2]])
    """
    wanted = as_shape(shape)
    offset = len(wanted) - x.ndim
    return _core.expand(x, [x.shape[i - offset] if n == -1 and i >= offset else n for i, n in enumerate(wanted)])


def permute(x: Tensor, *axes: Any) -> Tensor:
    """The axes in another order.

    Args:
        x: tensor of any shape.
        axes: for each axis of the result, which one of ``x`` it is.

    Returns:
        Tensor with the axes in that order.

    Raises:
        ValueError: an axis is missing or named twice.

    Example:
        >>> smelt.zeros(2, 3, 4).permute(2, 0, 1).shape
        (4, 2, 3)
    """
    return _core.permute(x, as_shape(axes))


def swapaxes(x: Tensor, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged; of the last two, only a mark is set, which a matrix product consumes without a copy.

    Args:
        x: tensor of any shape.
        axis1: the one.
        axis2: the other.

    Returns:
        Tensor with the two axes exchanged.

    Raises:
        ValueError: an axis does not exist.

    Example:
        >>> smelt.zeros(2, 3, 4).swapaxes(0, 2).shape
        (4, 3, 2)
    """
    first, second = _axis("swapaxes", axis1, x.ndim), _axis("swapaxes", axis2, x.ndim)
    if {first, second} == {x.ndim - 1, x.ndim - 2} and first != second:
        return _core.swap_last(x)
    order = list(range(x.ndim))
    order[first], order[second] = order[second], order[first]
    return _core.permute(x, order)


def moveaxis(x: Tensor, source: int, destination: int) -> Tensor:
    """One axis moved to another position, the others in order.

    Args:
        x: tensor of any shape.
        source: where the axis is.
        destination: where it goes.

    Returns:
        Tensor with the axis moved.

    Raises:
        ValueError: an axis does not exist.

    Example:
        >>> smelt.zeros(2, 3, 4).moveaxis(0, -1).shape
        (3, 4, 2)
    """
    at, to = _axis("moveaxis", source, x.ndim), _axis("moveaxis", destination, x.ndim)
    order = [i for i in range(x.ndim) if i != at]
    order.insert(to, at)
    return _core.permute(x, order)


def to_nhwc(x: Tensor) -> Tensor:
    """Images (N, C, H, W), or one (C, H, W), with the channels moved to the end, as every layer here takes them.

    Args:
        x: tensor with 3 or 4 axes.

    Returns:
        Tensor (N, H, W, C) or (H, W, C), a copy.

    Raises:
        ValueError: another number of axes.

    Example:
        >>> smelt.to_nhwc(smelt.zeros(8, 3, 32, 32)).shape
        (8, 32, 32, 3)
    """
    if x.ndim not in (3, 4):
        raise ValueError(f"to_nhwc: images must be (N, C, H, W) or (C, H, W), got shape {x.shape}")
    return _core.permute(x, [0, 2, 3, 1] if x.ndim == 4 else [1, 2, 0])


def to_nchw(x: Tensor) -> Tensor:
    """Images (N, H, W, C), or one (H, W, C), with the channels moved to the front, as some other libraries take them.

    Args:
        x: tensor with 3 or 4 axes.

    Returns:
        Tensor (N, C, H, W) or (C, H, W), a copy.

    Raises:
        ValueError: another number of axes.

    Example:
        >>> smelt.to_nchw(smelt.zeros(8, 32, 32, 3)).shape
        (8, 3, 32, 32)
    """
    if x.ndim not in (3, 4):
        raise ValueError(f"to_nchw: images must be (N, H, W, C) or (H, W, C), got shape {x.shape}")
    return _core.permute(x, [0, 3, 1, 2] if x.ndim == 4 else [2, 0, 1])


def concat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors joined along an axis that they have.

    Args:
        tensors: at least one, equal in shape but for the axis.
        axis: the axis to join along.

    Returns:
        Tensor whose extent along the axis is the sum of theirs.

    Raises:
        ValueError: the shapes differ elsewhere.

    Example:
        >>> smelt.concat([smelt.tensor([1, 2]), smelt.tensor([3])])
        tensor([1, 2, 3])
    """
    return _core.concat(as_tensors("concat", tensors), as_axis("concat", axis))


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis.

    Args:
        tensors: at least one, of one shape.
        axis: position of the new axis in the result.

    Returns:
        Tensor with one axis more.

    Raises:
        ValueError: the shapes differ, or there is no tensor.

    Example:
        >>> smelt.stack([smelt.tensor([1, 2]), smelt.tensor([3, 4])])
        tensor([[1, 2],
                [3, 4]])
    """
    items = as_tensors("stack", tensors)
    if not items:
        raise ValueError("stack: needs at least one tensor, got none")
    for item in items[1:]:
        if item.shape != items[0].shape:
            raise ValueError(f"stack: tensors must have one shape, got {items[0].shape} and {item.shape}")
    return _core.concat([expand_dims(item, axis) for item in items], axis)


def split(x: Tensor, sizes: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cut along an axis into pieces.

    Args:
        x: tensor with at least one axis.
        sizes: the extent of every piece (the last may be smaller), or one for each.
        axis: the axis to cut.

    Returns:
        List of tensors, in order.

    Raises:
        ValueError: a size is negative, or they do not add up to the extent of the axis.

    Example:
        >>> smelt.split(smelt.arange(5), 2)
        [tensor([0, 1]), tensor([2, 3]), tensor([4])]
    """
    at = _axis("split", axis, x.ndim)
    extent = x.shape[at]
    if isinstance(sizes, Iterable):
        each = [as_whole("split: a size", n) for n in sizes]
    else:
        size = as_whole("split: sizes", sizes)
        if size < 1:
            raise ValueError(f"split: pieces must have at least 1 element, got {size}")
        each = [min(size, extent - begin) for begin in range(0, extent, size)]
    if any(n < 0 for n in each):
        raise ValueError(f"split: sizes must not be negative, got {each}")
    if sum(each) != extent:
        raise ValueError(f"split: sizes must add up to {extent}, got {each}")
    pieces, begin = [], 0
    for n in each:
        part = [(0, e, 1) for e in x.shape]
        part[at] = (begin, n, 1)
        pieces.append(_core.slice(x, part))
        begin += n
    return pieces


def flip(x: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    """Reversed along some axes.

    Args:
        x: tensor of any shape.
        axis: one axis, several, or None for all.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: an axis does not exist.

    Example:
        >>> smelt.flip(smelt.arange(3))
        tensor([2, 1, 0])
    """
    axes = range(x.ndim) if axis is None else [_axis("flip", a, x.ndim) for a in as_axes("flip", axis) or ()]
    return _core.slice(x, [(n - 1, n, -1) if i in axes and n else (0, n, 1) for i, n in enumerate(x.shape)])


def roll(x: Tensor, shift: int, axis: int | None = None) -> Tensor:
    """Moved along an axis, what falls off the end coming in at the start.

    Args:
        x: tensor of any shape.
        shift: by how many places, negative to the left.
        axis: the axis, None for the flattened tensor.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: the axis does not exist.

    Example:
        >>> smelt.roll(smelt.arange(4), 1)
        tensor([3, 0, 1, 2])
    """
    if axis is None:
        return _core.reshape(roll(_core.reshape(x, [x.size]), shift, 0), list(x.shape))
    at = _axis("roll", axis, x.ndim)
    n = x.shape[at]
    if n == 0 or shift % n == 0:
        return x
    first, second = split(x, [n - shift % n, shift % n], at)
    return _core.concat([second, first], at)


def pad(x: Tensor, widths: Sequence[Any], value: float = 0.0) -> Tensor:
    """Surrounded with a constant.

    Args:
        x: tensor of any shape.
        widths: for each axis a pair (before, after), or one number for both.
        value: the constant.

    Returns:
        Tensor grown by the widths.

    Raises:
        ValueError: a width is negative, or there is not one for each axis.

    Example:
        >>> smelt.pad(smelt.tensor([1, 2]), [(1, 2)])
        tensor([0, 1, 2, 0, 0])
    """
    widths = widths.tolist() if hasattr(widths, "tolist") else widths
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise TypeError(f"pad: widths must be a sequence with a number or a pair for each axis, got {widths!r}")
    return _core.pad(x, [pair("pad: widths", w) for w in widths], value)


def _triangle(x: Tensor, diagonal: int, lower: bool) -> Tensor:
    if x.ndim < 2:
        raise ValueError(f"{'tril' if lower else 'triu'}: needs at least 2 axes, got shape {x.shape}")
    rows, columns = x.shape[-2:]
    i = _core.reshape(_core.arange(0, 1, rows, "int64", x.device), [rows, 1])
    j = _core.arange(0, 1, columns, "int64", x.device)
    return _core.where(j - i <= diagonal if lower else j - i >= diagonal, x, 0)


def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices with zeros above a diagonal.

    Args:
        x: tensor (..., rows, columns).
        diagonal: 0 is the main one, positive ones lie above it.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: fewer than 2 axes.

    Example:
        >>> smelt.tril(smelt.ones(2, 2))
        tensor([[1., 0.],
                [1., 1.]])
    """
    return _triangle(x, diagonal, True)


def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices with zeros below a diagonal.

    Args:
        x: tensor (..., rows, columns).
        diagonal: 0 is the main one, positive ones lie above it.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: fewer than 2 axes.

    Example:
        >>> smelt.triu(smelt.ones(2, 2))
        tensor([[1., 1.],
                [0., 1.]])
    """
    return _triangle(x, diagonal, False)
