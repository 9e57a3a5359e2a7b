"""Names for the types of arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import _core
from .._core import DType, Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]
    DTypeLike: TypeAlias = DType | str | type | np.dtype[Any]
    Number: TypeAlias = int | float | bool | np.number[Any]
    TensorLike: TypeAlias = Tensor | Array | int | float | bool
else:
    Array = DTypeLike = Number = TensorLike = Any

Shape: TypeAlias = int | Sequence[int]
Axis: TypeAlias = int | Sequence[int] | None
Pair: TypeAlias = int | Sequence[int]

__all__ = ["Array", "Axis", "DType", "DTypeLike", "Number", "Pair", "Shape", "Tensor", "TensorLike"]


def as_shape(shape: tuple[Any, ...]) -> list[int]:
    """The extents given as f(2, 3) or as f((2, 3))."""
    one: Any = shape[0] if len(shape) == 1 else 0
    if hasattr(one, "__iter__") and not isinstance(one, str) and getattr(one, "ndim", None) != 0:
        shape = tuple(one)
    try:
        return [_counted("shape: extents", index(n)) for n in shape]
    except TypeError:
        raise TypeError(f"shape: extents must be integers, got {shape!r}") from None


def as_axis(op: str, axis: Any) -> int:
    """One axis."""
    try:
        return _counted(f"{op}: axis", index(axis))
    except TypeError:
        raise TypeError(f"{op}: axis must be an integer, got {axis!r}") from None


def as_axes(op: str, axis: Axis) -> list[int] | None:
    """One axis, several, or None for all."""
    if axis is None:
        return None
    several: Any = axis
    if hasattr(several, "__iter__") and not isinstance(several, str) and getattr(several, "ndim", None) != 0:
        return [as_axis(op, a) for a in several]
    return [as_axis(op, axis)]


def as_tensors(op: str, tensors: Any) -> list[Tensor]:
    """A sequence of tensors (or arrays) as a list."""
    items = list(tensors) if hasattr(tensors, "__iter__") else [tensors]
    for item in items:
        if not isinstance(item, Tensor) and not hasattr(item, "__array__"):
            raise TypeError(f"{op}: needs a sequence of tensors, got {type(item).__name__}")
    return [_core.to_tensor(item) for item in items]


def pair(name: str, value: Any) -> tuple[int, int]:
    """One number for rows and columns alike, or a pair of them."""
    two = value if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    try:
        rows, columns = (index(n) for n in two)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: needs one number or a pair, got {value!r}") from None
    return _counted(name, rows), _counted(name, columns)


def as_whole(name: str, value: Any) -> int:
    """An integer, Python's or NumPy's; ``name`` is that of op and argument."""
    try:
        return index(value)
    except (TypeError, ValueError):  # a tensor of several elements raises the latter
        raise TypeError(f"{name} must be a whole number, got {shown(value)}") from None


def _counted(name: str, value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must fit 64 bits, got {value}")
    return value


def as_count(name: str, value: Any) -> int:
    """A whole number of 64 bits; ``name`` is that of op and argument."""
    return _counted(name, as_whole(name, value))


def as_number(name: str, value: Any) -> float:
    """A number, Python's or NumPy's; ``name`` is that of op and argument."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that float64 has, got {value}") from None


def shown(value: Any) -> str:
    """A value for an error message: numbers and texts in full, of others the type."""
    return repr(value) if value is None or isinstance(value, (Real, str)) else type(value).__name__


def is_finite_number(value: Any) -> bool:
    """Whether it is a number, Python's or NumPy's, but no bool, and neither infinite nor NaN, also as a float."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def names_device(item: Any) -> bool:
    """Whether an argument of ``to()`` is a device's name and no dtype."""
    return isinstance(item, str) and item.partition(":")[0] in ("cpu", "cuda", "emu")
