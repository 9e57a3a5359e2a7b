"""Reading and writing by index. Gradients of repeated indices are added in the order of the indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from ._types import DTypeLike, Number, Tensor, TensorLike, as_whole, shown
from .create import tensor

__all__ = ["embedding", "gather", "masked_fill", "nonzero", "one_hot", "scatter_add", "take"]


def _tensor(name: str, value: Any) -> Tensor:
    """An argument that may be an array; ``name`` is that of op and argument."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise TypeError(f"{name} must be a tensor or array, got {shown(value)}")
    return tensor(value)


def take(x: Tensor, index: TensorLike, axis: int = 0) -> Tensor:
    """The slices of ``x`` at some positions along an axis.

    Args:
        x: tensor with at least one axis.
        index: integer tensor of any shape, values in [0, extent of the axis).
        axis: the axis to pick along.

    Returns:
        Tensor with the shape of ``index`` in place of the axis.

    Raises:
        IndexError: an index is out of range; the message has its value and position.

    Example:
        >>> smelt.take(smelt.tensor([10, 20, 30]), smelt.tensor([2, 0]))
        tensor([30, 10])
    """
    return _core.take(x, _core.to_tensor(index), as_whole("take: axis", axis))


def gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """One element of ``x`` for each element of ``index``: y[i, j] = x[i, index[i, j]] along axis 1.

    Args:
        x: tensor with at least one axis.
        index: integer tensor of the shape of ``x`` but for the axis.
        axis: the axis to pick along.

    Returns:
        Tensor of the shape of ``index``.

    Raises:
        IndexError: an index is out of range.
        ValueError: the shapes disagree.

    Example:
        >>> x = smelt.tensor([[1, 2], [3, 4]])
        >>> smelt.gather(x, smelt.tensor([[1], [0]]), axis=1)
        tensor([[2],
                [3]])
    """
    axis = as_whole("gather: the third argument, axis,", axis)
    return _core.gather(_tensor("gather: x", x), _tensor("gather: index", index), axis)


def scatter_add(x: Tensor, index: Tensor, values: Tensor, axis: int) -> Tensor:
    """A copy of ``x`` with values added at positions along an axis: y[i, index[i, j]] += values[i, j] along axis 1.

    Args:
        x: tensor with at least one axis.
        index: integer tensor of the shape of ``x`` but for the axis.
        values: tensor of the shape of ``index`` and the dtype of ``x``.
        axis: the axis to add along.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        IndexError: an index is out of range.
        ValueError: the shapes disagree.

    Example:
        >>> x = smelt.zeros(3)
        >>> smelt.scatter_add(x, smelt.tensor([0, 2, 0]), smelt.ones(3), axis=0)
        tensor([2., 0., 1.])
    """
    axis = as_whole("scatter_add: the fourth argument, axis,", axis)
    tensors = _tensor("scatter_add: x", x), _tensor("scatter_add: index", index), _tensor("scatter_add: values", values)
    return _core.scatter_add(*tensors, axis)


def embedding(index: Tensor, weight: Tensor, padding_index: int | None = None) -> Tensor:
    """A row of ``weight`` for each index.

    Args:
        index: integer tensor of any shape, values in [0, rows).
        weight: floating tensor (rows, features).
        padding_index: a row that takes no gradient.

    Returns:
        Tensor with the shape of ``index`` and an axis of features.

    Raises:
        IndexError: an index is out of range.
        ValueError: ``padding_index`` is not one of the rows.

    Example:
        >>> weight = smelt.tensor([[0.0, 0.0], [1.0, 2.0]])
        >>> smelt.embedding(smelt.tensor([1, 0]), weight)
        tensor([[1., 2.],
                [0., 0.]])
    """
    index, weight = _tensor("embedding: index", index), _tensor("embedding: weight", weight)
    if padding_index is not None:
        padding_index = as_whole("embedding: padding_index", padding_index)
    if padding_index is not None and weight.ndim == 2 and not 0 <= padding_index < weight.shape[0]:
        raise ValueError(f"embedding: padding_index must be from 0 to {weight.shape[0] - 1}, got {padding_index}")
    return _core.embedding(index, weight, -1 if padding_index is None else padding_index)


def nonzero(x: Tensor) -> tuple[Tensor, ...]:
    """The positions of the elements that are not zero, in order.

    Args:
        x: tensor with at least one axis.

    Returns:
        One int64 tensor (count,) for each axis, as an index for ``x``.

    Example:
        >>> smelt.nonzero(smelt.tensor([[0, 1], [1, 0]]))
        (tensor([0, 1]), tensor([1, 0]))
    """
    rest = _core.nonzero(x)
    axes: list[Tensor] = []
    for extent in reversed(x.shape):
        axes.append(rest % extent)
        rest = rest // extent
    return tuple(reversed(axes))


def masked_fill(x: Tensor, mask: Tensor, value: Number) -> Tensor:
    """``x`` with a number where the mask holds.

    Args:
        x: tensor of any shape.
        mask: bool tensor that broadcasts to ``x``.
        value: the number.

    Returns:
        Tensor of the broadcast shape; no gradient flows where the mask holds.

    Raises:
        TypeError: the mask is not bool.

    Example:
        >>> smelt.masked_fill(smelt.ones(3), smelt.tensor([True, False, True]), 0)
        tensor([0., 1., 0.])
    """
    mask = _tensor("masked_fill: mask", mask)
    if mask.dtype != "bool":
        raise TypeError(f"masked_fill: mask must be bool, got {mask.dtype}")
    return _core.where(mask, value, x)


def one_hot(index: Tensor, classes: int, dtype: DTypeLike = "float32") -> Tensor:
    """A new last axis with 1 at each index and 0 elsewhere.

    Args:
        index: integer tensor of any shape, values in [0, classes).
        classes: extent of the new axis.
        dtype: the element type.

    Returns:
        Tensor with one axis more.

    Raises:
        IndexError: an index is out of range.

    Example:
        >>> smelt.one_hot(smelt.tensor([2, 0]), 3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    index, classes = _tensor("one_hot: index", index), as_whole("one_hot: classes", classes)
    if classes < 0:
        raise ValueError(f"one_hot: classes must not be negative, got {classes}")
    rows = _core.arange(0, 1, classes, "int64", index.device)
    identity = _core.cast(_core.reshape(rows, [classes, 1]) == rows, dtype)
    return _core.take(identity, index, 0)
