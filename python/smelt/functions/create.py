"""Making tensors."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from .. import _core
from ._types import Array, DTypeLike, Number, Tensor, as_shape, as_whole, is_finite_number, shown

__all__ = [
    "arange",
    "empty",
    "eye",
    "from_dlpack",
    "from_numpy",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "tensor",
    "zeros",
    "zeros_like",
]


def tensor(data: Any, dtype: DTypeLike | None = None, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of ``data``.

    Args:
        data: nested lists of numbers, a NumPy array, a tensor or a number. Lists of floats become float32, of integers
            int64; arrays keep their dtype (int8, int16 and uint16 widen to int32, uint32 to int64).
        dtype: the dtype to convert to.
        device: ``"cpu"``, or ``"cuda"`` where there is one.
        requires_grad: whether backward leaves a gradient in ``.grad``.

    Returns:
        Tensor of the shape of ``data``.

    Raises:
        TypeError: ``data`` holds something that is not a number.
        ValueError: nested lists are ragged.

    Example:
        >>> smelt.tensor([[1, 2], [3, 4]], dtype="float32")
        tensor([[1., 2.],
                [3., 4.]])
    """
    if isinstance(data, Tensor):
        out = _core.copy(data._detach())
    else:
        if not isinstance(data, (np.ndarray, np.generic)):
            if isinstance(data, (list, tuple)) and _holds_tensor(data):
                data = _stack_nested(data)
            try:
                array = np.asarray(data)
            except ValueError as error:
                if "inhomogeneous" not in str(error):
                    raise
                raise ValueError("tensor: nested lists must have equal lengths, got ragged ones") from None
            if array.dtype.kind not in "biuf":
                raise TypeError(f"tensor: data must be numbers, got {type(data).__name__} of dtype {array.dtype}")
            if array.dtype == np.float64 and dtype is None:
                array = array.astype(np.float32)
        else:
            array = np.asarray(data)
        out = _core.from_numpy(array, True)
    if dtype is not None:
        out = _core.cast(out, dtype)
    if device != "cpu":
        out = _core.to_device(out, device)
    if requires_grad:
        out.requires_grad = True
    return out


def _holds_tensor(data: Any) -> bool:
    return any(isinstance(item, Tensor) or (isinstance(item, (list, tuple)) and _holds_tensor(item)) for item in data)


def _stack_nested(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.numpy()
    return [_stack_nested(item) for item in data] if isinstance(data, (list, tuple)) else data


def from_numpy(array: Array, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of a NumPy array: a write to one shows in the other.

    Args:
        array: a NumPy array. Arrays that are not row-major, native-endian, aligned and writable are copied.
        copy: True always copies; False raises where sharing is not possible.

    Returns:
        Tensor of the shape and dtype of ``array``.

    Raises:
        TypeError: the dtype has no counterpart.
        ValueError: ``copy=False`` and the memory cannot be shared.

    Example:
        >>> a = np.zeros(2, np.float32)
        >>> x = smelt.from_numpy(a)
        >>> a[0] = 5
        >>> x
        tensor([5., 0.])
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: needs a NumPy array, got {type(array).__name__}")
    return _core.from_numpy(array, copy)


def from_dlpack(source: Any, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of an object that speaks DLPack (NumPy, PyTorch, JAX ...).

    Args:
        source: an object with ``__dlpack__``, in memory of the CPU.
        copy: True always copies; False raises where sharing is not possible (read-only or not row-major memory).

    Returns:
        Tensor of the shape and dtype of ``source``.

    Raises:
        BufferError: device, dtype or layout cannot be taken over.

    Example:
        >>> smelt.from_dlpack(np.arange(3))
        tensor([0, 1, 2])
    """
    return _core.from_dlpack(source, copy)


def full(shape: Any, value: Number, dtype: DTypeLike | None = None, device: str = "cpu") -> Tensor:
    """A tensor of one value.

    Args:
        shape: extents, a number or a sequence.
        value: the value of every element.
        dtype: by default float32 for a float, int64 for an integer, bool for a bool.
        device: where the tensor lies.

    Returns:
        Tensor of ``shape``.

    Raises:
        ValueError: an extent is negative.

    Example:
        >>> smelt.full((2, 2), 7)
        tensor([[7, 7],
                [7, 7]])
    """
    if dtype is None:
        dtype = (
            "bool"
            if isinstance(value, (bool, np.bool_))
            else "int64"
            if isinstance(value, (int, np.integer))
            else "float32"
        )
    return _core.full(as_shape((shape,)), value, dtype, device)


def zeros(*shape: Any, dtype: DTypeLike = "float32", device: str = "cpu") -> Tensor:
    """A tensor of zeros.

    Args:
        shape: extents, as several arguments or one sequence.
        dtype: the element type.
        device: where the tensor lies.

    Returns:
        Tensor of ``shape``.

    Example:
        >>> smelt.zeros(2, 3).shape
        (2, 3)
    """
    return _core.full(as_shape(shape), 0, dtype, device)


def ones(*shape: Any, dtype: DTypeLike = "float32", device: str = "cpu") -> Tensor:
    """A tensor of ones.

    Args:
        shape: extents, as several arguments or one sequence.
        dtype: the element type.
        device: where the tensor lies.

    Returns:
        Tensor of ``shape``.

    Example:
        >>> smelt.ones(3)
        tensor([1., 1., 1.])
    """
    return _core.full(as_shape(shape), 1, dtype, device)


def empty(*shape: Any, dtype: DTypeLike = "float32", device: str = "cpu") -> Tensor:
    """A tensor whose content is whatever the memory held.

    Args:
        shape: extents, as several arguments or one sequence.
        dtype: the element type.
        device: where the tensor lies.

    Returns:
        Tensor of ``shape``; write to it before you read it.

    Example:
        >>> smelt.empty(0, 5).shape
        (0, 5)
    """
    return _core.empty(as_shape(shape), dtype, device)


def _plain(name: str, value: Any) -> Any:
    """An argument of arange: a number, or a tensor or array of shape ()."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, Real):
        raise TypeError(f"arange: {name} must be a number, got {shown(value)}")
    if not is_finite_number(value):
        raise ValueError(f"arange: {name} must be a finite number, got {value}")
    return value


def arange(
    start: Number, stop: Number | None = None, step: Number = 1, dtype: DTypeLike | None = None, device: str = "cpu"
) -> Tensor:
    """Numbers from ``start`` (0 when only one bound is given) up to and without ``stop``.

    Args:
        start: the first number, or the end when ``stop`` is None.
        stop: the end, not contained.
        step: the distance, not 0.
        dtype: by default int64 for integers, float32 when any argument is a float.
        device: where the tensor lies.

    Returns:
        Tensor (n,) with n = ceil((stop - start) / step).

    Raises:
        TypeError: an argument is not a number.
        ValueError: ``step`` is 0, or an argument is not finite.

    Example:
        >>> smelt.arange(2, 8, 3)
        tensor([2, 5])
    """
    if stop is None:
        start, stop = 0, start
    start, stop, step = _plain("start", start), _plain("stop", stop), _plain("step", step)
    if step == 0:
        raise ValueError("arange: step must not be 0")
    if dtype is None:
        whole = all(isinstance(v, (int, np.integer)) for v in (start, stop, step))
        dtype = "int64" if whole else "float32"
    span: Any = stop - start
    steps = -(-span // step)  # infinite where the quotient is beyond every float
    if steps >= 2**63:
        raise ValueError(f"arange: there must be fewer than 2**63 numbers, got {start} to {stop} in steps of {step}")
    count = max(0, int(steps)) if steps > -math.inf else 0
    return _core.arange(start, step, count, dtype, device)


def linspace(start: float, stop: float, count: int, dtype: DTypeLike = "float32", device: str = "cpu") -> Tensor:
    """``count`` numbers at equal distances from ``start`` to ``stop``, both contained.

    Args:
        start: the first number.
        stop: the last number.
        count: how many, at least 1.
        dtype: a floating dtype.
        device: where the tensor lies.

    Returns:
        Tensor (count,).

    Raises:
        ValueError: ``count`` is below 1.

    Example:
        >>> smelt.linspace(0, 1, 5)
        tensor([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    count = as_whole("linspace: count", count)
    if count < 1:
        raise ValueError(f"linspace: count must be at least 1, got {count}")
    return tensor(np.linspace(start, stop, count), dtype=dtype, device=device)


def eye(rows: int, columns: int | None = None, dtype: DTypeLike = "float32", device: str = "cpu") -> Tensor:
    """A matrix with ones on the diagonal and zeros elsewhere.

    Args:
        rows: number of rows.
        columns: number of columns, by default that of rows.
        dtype: the element type.
        device: where the tensor lies.

    Returns:
        Tensor (rows, columns).

    Raises:
        ValueError: a number is negative.

    Example:
        >>> smelt.eye(2)
        tensor([[1., 0.],
                [0., 1.]])
    """
    rows = as_whole("eye: rows", rows)
    columns = rows if columns is None else as_whole("eye: columns", columns)
    if rows < 0 or columns < 0:
        raise ValueError(f"eye: extents must not be negative, got ({rows}, {columns})")
    i = _core.reshape(arange(rows, device=device), [rows, 1])
    j = arange(columns, device=device)
    return _core.cast(i == j, dtype)


def _like(x: Tensor, dtype: DTypeLike | None) -> tuple[list[int], DTypeLike, str]:
    return list(x.shape), x.dtype if dtype is None else dtype, x.device


def zeros_like(x: Tensor, dtype: DTypeLike | None = None) -> Tensor:
    """Zeros with the shape, dtype and device of ``x``.

    Args:
        x: the model.
        dtype: another dtype.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.zeros_like(smelt.tensor([1, 2]))
        tensor([0, 0])
    """
    shape, kind, device = _like(x, dtype)
    return _core.full(shape, 0, kind, device)


def ones_like(x: Tensor, dtype: DTypeLike | None = None) -> Tensor:
    """Ones with the shape, dtype and device of ``x``.

    Args:
        x: the model.
        dtype: another dtype.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.ones_like(smelt.tensor([1, 2]))
        tensor([1, 1])
    """
    shape, kind, device = _like(x, dtype)
    return _core.full(shape, 1, kind, device)


def full_like(x: Tensor, value: Number, dtype: DTypeLike | None = None) -> Tensor:
    """One value with the shape, dtype and device of ``x``.

    Args:
        x: the model.
        value: the value of every element.
        dtype: another dtype.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.full_like(smelt.tensor([1.0, 2.0]), 3)
        tensor([3., 3.])
    """
    shape, kind, device = _like(x, dtype)
    return _core.full(shape, value, kind, device)
