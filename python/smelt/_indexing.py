"""x[...] with masks and index arrays, by NumPy's rules: compositions of take and reshape."""

from __future__ import annotations

import math
from operator import index as index_of
from typing import Any

import numpy as np

from . import _core
from ._core import Tensor
from .functions import tensor


def _expand_key(x: Tensor, key: Any) -> list[Any]:
    """The key as one item for each axis of x, and None; masks become index tensors.

    A ``...`` that covers no axis stays: as in NumPy, it separates the arrays on its sides.
    """
    items: list[Any] = list(key) if isinstance(key, tuple) else [key]
    out: list[Any] = []
    used = 0
    for item in items:
        if isinstance(item, (list, np.ndarray, bool, np.bool_)):
            array = np.asarray(item)
            array = array.astype(np.int64) if array.size == 0 and isinstance(item, list) else array
            item = _core.from_numpy(array, True).to(x.device)
        if isinstance(item, Tensor) and item.dtype == "bool":
            used += item.ndim
        elif item is not None and item is not Ellipsis:
            if not isinstance(item, (slice, Tensor)) and not hasattr(item, "__index__"):
                raise IndexError(
                    f"index: needs integers, slices, None, ..., masks or integer arrays, got {type(item).__name__}"
                )
            used += 1
        out.append(item)
    if sum(item is Ellipsis for item in out) > 1:
        raise IndexError("index: only one ... is allowed")
    if used > x.ndim:
        raise IndexError(f"index: at most {x.ndim} indices for shape {x.shape}, got {used}")
    at = next((i for i, item in enumerate(out) if item is Ellipsis), None)
    if at is None:
        out += [slice(None)] * (x.ndim - used)
    else:
        if used < x.ndim:
            out[at : at + 1] = [slice(None)] * (x.ndim - used)
    expanded: list[Any] = []
    axis = 0
    for item in out:
        if isinstance(item, Tensor) and item.dtype == "bool":
            covered = x.shape[axis : axis + item.ndim]
            if item.shape != covered:
                raise IndexError(f"index: the mask must have shape {covered} there, got {item.shape}")
            if item.ndim == 0:
                expanded.append(item)  # a new axis of extent 1 or 0
                continue
            rest = _core.nonzero(item)
            axes = []
            for extent in reversed(item.shape):
                axes.append(rest % extent)
                rest = rest // extent
            expanded += reversed(axes)
            axis += item.ndim
        else:
            expanded.append(item)
            axis += item is not None and item is not Ellipsis
    return expanded


def _is_flag(item: Any) -> bool:
    return isinstance(item, Tensor) and item.dtype == "bool"


def _items(x: Tensor, key: Any) -> list[Any]:
    """The expanded key, with index tensors in place of integers, since those broadcast with arrays."""
    return [
        item
        if item is None or item is Ellipsis or isinstance(item, (slice, Tensor))
        else _core.full([], index_of(item), "int64", x.device)
        for item in _expand_key(x, key)
    ]


def _positions(item: Tensor, extent: int) -> Tensor:
    """An index tensor or flag as positions in [0, extent)."""
    given = _core.nonzero(item) if _is_flag(item) else item
    if given.dtype.is_floating:
        raise IndexError(f"index: arrays must be integers or bool, got {given.dtype}")
    own = _core.cast(given, "int64")
    _core.check_positions(own, -extent, extent)
    return _core.where(own < 0, own + extent, own)


def _add(a: Tensor | None, b: Tensor) -> Tensor:
    if a is None:
        return b
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise IndexError(f"index: arrays must have shapes that broadcast, got {a.shape} and {b.shape}") from None
    return a + b


def _permuted(x: Tensor, order: list[int]) -> Tensor:
    return x if order == sorted(order) else _core.permute(x, order)


def get_item(x: Tensor, key: Any) -> Tensor:
    items = _items(x, key)
    arrays = [i for i, item in enumerate(items) if isinstance(item, Tensor)]
    together = arrays[-1] - arrays[0] + 1 == len(arrays)
    items = [item for item in items if item is not Ellipsis]
    arrays = [i for i, item in enumerate(items) if isinstance(item, Tensor)]
    basic = tuple(None if _is_flag(item) else slice(None) if isinstance(item, Tensor) else item for item in items)
    part = x[basic]
    shape = part.shape
    # The arrays' axes to the front, as one; then rows are taken.
    others = [i for i in range(part.ndim) if i not in arrays]
    moved = _permuted(part, [*arrays, *others])
    index: Tensor | None = None
    for i in arrays:
        index = _add(None if index is None else index * shape[i], _positions(items[i], shape[i]))
    assert index is not None
    flat = _core.reshape(moved, [math.prod(shape[i] for i in arrays), *(shape[i] for i in others)])
    out = _core.take(flat, index, 0)
    if not together or arrays[0] == 0:
        return out
    # Arrays that stand side by side leave their axes where they were.
    count = index.ndim
    before = sum(1 for i in others if i < arrays[0])
    return _permuted(out, [*range(count, count + before), *range(count), *range(count + before, out.ndim)])


def _offsets(x: Tensor, items: list[Any]) -> Tensor:
    """Where the elements of x[items] lie in x's memory."""
    stride, axis = x.size, 0
    arrays: Tensor | None = None
    others: list[Tensor] = []
    first = last = -1  # of the arrays
    before = 0  # others before the first array
    for i, item in enumerate(items):
        extent = 1
        if item is Ellipsis:  # covers no axis
            continue
        if item is not None and not _is_flag(item):
            extent = x.shape[axis]
            stride = stride // extent if extent else 0
            axis += 1
        if isinstance(item, Tensor):
            positions = _positions(item, extent)
            arrays = _add(arrays, positions * (0 if _is_flag(item) else stride))
            if first < 0:
                first, before = i, len(others)
            elif i != last + 1:
                before = 0  # not side by side: their axes come first
            last = i
        elif item is None:
            others.append(_core.full([1], 0, "int64", x.device))
        else:
            steps = range(*item.indices(extent))
            others.append(_core.arange(steps.start * stride, steps.step * stride, len(steps), "int64", x.device))
    assert arrays is not None
    tail = len(others) - before
    out = _core.reshape(arrays, [*(1,) * before, *arrays.shape, *(1,) * tail])
    for j, other in enumerate(others):
        behind = len(others) - 1 - j + (arrays.ndim if j < before else 0)
        out = out + _core.reshape(other, [other.size, *(1,) * behind])
    return out


def set_item(x: Tensor, key: Any, value: Any) -> None:
    if x.requires_grad and _core.grad_enabled():
        raise RuntimeError("assign: a tensor that requires a gradient is written under smelt.no_grad() only")
    if not _core.contiguous(x)._same_memory(x):
        raise ValueError("assign: a transposed view cannot be written; write to the tensor itself")
    index = _offsets(x, _items(x, key))
    given = (
        _core.cast(value._detach(), x.dtype) if isinstance(value, Tensor) else tensor(value, x.dtype, device=x.device)
    )
    values = _core.expand(given, list(index.shape))
    flat = _core.reshape(x._detach(), [x.size])
    _core.put(flat, _core.reshape(index, [index.size]), _core.reshape(values, [index.size]))
