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
    """The key as one item for each axis of x, and None; masks become index tensors."""
    items: list[Any] = list(key) if isinstance(key, tuple) else [key]
    out: list[Any] = []
    used = 0
    for item in items:
        if isinstance(item, (list, np.ndarray, bool, np.bool_)):
            array = np.asarray(item)
            item = _core.from_numpy(
                array.astype(np.int64) if array.size == 0 and isinstance(item, list) else array, True
            )
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
            axis += item is not None
    return expanded


def _is_array(item: Any) -> bool:
    return isinstance(item, Tensor)


def _is_flag(item: Any) -> bool:
    return isinstance(item, Tensor) and item.dtype == "bool"


def get_item(x: Tensor, key: Any) -> Tensor:
    items = _expand_key(x, key)
    # Integers beside arrays broadcast with them.
    items = [
        item if item is None or isinstance(item, (slice, Tensor)) else _core.full([], index_of(item), "int64", x.device)
        for item in items
    ]
    arrays = [i for i, item in enumerate(items) if _is_array(item)]
    together = arrays[-1] - arrays[0] + 1 == len(arrays)
    basic = tuple(None if _is_flag(item) else slice(None) if _is_array(item) else item for item in items)
    part = x[basic]
    shape = part.shape
    # The arrays' axes to the front, as one; then rows are taken.
    others = [i for i in range(part.ndim) if i not in arrays]
    moved = _core.permute(part, [*arrays, *others])
    extents = [shape[i] for i in arrays]
    rest = [shape[i] for i in others]
    index: Tensor | None = None
    for extent, i in zip(extents, arrays):
        given = _core.nonzero(items[i]) if _is_flag(items[i]) else items[i]
        if given.dtype.is_floating:
            raise IndexError(f"index: arrays must be integers or bool, got {given.dtype}")
        own = _core.cast(given, "int64")
        wrapped = _core.where(own < 0, own + extent, own)
        bad = (wrapped < 0) | (wrapped >= extent)
        if wrapped.size and bool(_core.any(bad, None, False)):
            first = _core.take(_core.reshape(own, [own.size]), _core.nonzero(bad), 0)
            raise IndexError(f"index: must be in [{-extent}, {extent}), got {int(first[0])}")
        if index is not None:
            try:
                np.broadcast_shapes(index.shape, wrapped.shape)
            except ValueError:
                raise IndexError(
                    f"index: arrays must have shapes that broadcast, got {index.shape} and {wrapped.shape}"
                ) from None
        index = wrapped if index is None else index * extent + wrapped
    assert index is not None
    flat = _core.reshape(moved, [math.prod(extents), *rest])
    out = _core.take(flat, index, 0)
    if not together or arrays[0] == 0:
        return out
    # Arrays that stand side by side leave their axes where they were.
    count = index.ndim
    before = sum(1 for i in others if i < arrays[0])
    order = [*range(count, count + before), *range(count), *range(count + before, out.ndim)]
    return _core.permute(out, order)


def set_item(x: Tensor, key: Any, value: Any) -> None:
    if x.requires_grad and _core.grad_enabled():
        raise RuntimeError("assign: a tensor that requires a gradient is written under smelt.no_grad() only")
    if not _core.contiguous(x)._same_memory(x):
        raise ValueError("assign: a transposed view cannot be written; write to the tensor itself")
    positions = _core.reshape(_core.arange(0, 1, x.size, "int64", x.device), list(x.shape))
    index = get_item(positions, key)
    given = _core.cast(value._detach(), x.dtype) if isinstance(value, Tensor) else tensor(value, x.dtype)
    values = _core.expand(given, list(index.shape))
    flat = _core.reshape(x._detach(), [x.size])
    _core.put(flat, _core.reshape(index, [index.size]), _core.reshape(values, [index.size]))
