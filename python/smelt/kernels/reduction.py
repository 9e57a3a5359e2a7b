"""Reductions, scans, sorting and indexing: one kernel each."""

from __future__ import annotations

from typing import Any

from ._call import Call, choose
from .elementwise import ANY

__all__ = [
    "check_index",
    "cumsum",
    "gather",
    "nonzero",
    "put",
    "reduce",
    "scatter_add",
    "sort",
    "take",
]

_REDUCTIONS = ("sum", "prod", "max", "min", "any", "all")
_INTEGERS = ("int32", "int64", "uint8", "bool")


def _result_dtype(op: str, dtype: str) -> str:
    if op in ("any", "all"):
        return "bool"
    return "int64" if op in ("sum", "prod") and dtype in _INTEGERS else dtype


def _axis(c: Call, x: Any, axis: int) -> int:
    """An axis, counted from the front."""
    shape = tuple(getattr(x, "shape", ()))
    if not -len(shape) <= axis < len(shape):
        raise IndexError(f"{c.slot}: axis must be in [{-len(shape)}, {len(shape)}), got {axis}")
    return axis % len(shape)


def _letters(x: Any, axis: int, n: str | None) -> str:
    """Letters of an array's axes: `n` for the one at `axis`, or none."""
    letters = [n if i == axis else f"a{i}" for i in range(len(x.shape))]
    return " ".join(letter for letter in letters if letter is not None)


def _extents(x: Any, axis: int) -> dict[str, int]:
    outer = inner = 1
    for i, n in enumerate(x.shape):
        if i < axis:
            outer *= int(n)
        elif i > axis:
            inner *= int(n)
    return {"outer": outer, "inner": inner}


def reduce(
    x: Any,
    op: str,
    axis: int = -1,
    *,
    scale: float = 1.0,
    index: bool = False,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """One axis to one value.

    Args:
        x: any shape and dtype.
        op: ``"sum"``, ``"prod"``, ``"max"``, ``"min"``, ``"any"`` or ``"all"``.
        axis: the axis, which the result does not have.
        scale: factor of a floating sum.
        index: also gives the place of the first extremum, int64; max and min only.
        accumulate: adds to what `out` holds; floating sums only.
        out: the result's shape, or None; float32 may hold the sum of halves.
        impl: a candidate.

    Returns:
        The result; with `index` also the places.

    Raises:
        ValueError: an unknown `op`; an empty axis has no maximum.
        IndexError: no such axis.

    Example:
        >>> kernels.reduce(np.array([[1, 5], [7, 2]], "float32"), "max", index=True)
        (array([5., 7.], dtype=float32), array([1, 0]))
    """
    c = Call("reduce", impl)
    number = choose("reduce", "op", op, _REDUCTIONS)
    axis = _axis(c, x, axis)
    c.input("x", x, _letters(x, axis, "n"), ANY)
    assert c.dtype is not None
    floating = c.dtype in ANY[:4]
    if op in ("max", "min") and c.size["n"] == 0:
        raise c.error(f"{op} needs at least one element along axis {axis}, got x of shape {tuple(x.shape)}")
    if (accumulate or scale != 1.0) and not (op == "sum" and floating):
        raise c.error(f"accumulate and scale need the sum of a floating dtype, got {op} of {c.dtype}")
    if index and op not in ("max", "min"):
        raise c.error(f"index needs max or min, got {op}")
    result = c.sums("y", out) if op == "sum" and floating else _result_dtype(op, c.dtype)
    rest = _letters(x, axis, None)
    c.output("y", out, rest, result, accumulate=accumulate, flag="accumulate")
    if index:
        c.output("index", None, rest, "int64")
    return c.run(n=c.size["n"], scale=scale, dtype=c.dtype, y_dtype=result, op=number, **_extents(x, axis))


def cumsum(
    x: Any,
    axis: int = -1,
    *,
    reverse: bool = False,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """Running sums along an axis.

    Args:
        x: any shape; floating, int32 or int64.
        axis: the axis.
        reverse: from the last element on.
        accumulate: adds to what `out` holds.
        out: the shape of `x`, or None.
        impl: a candidate.

    Returns:
        The shape of `x`.

    Raises:
        IndexError: no such axis.

    Example:
        >>> kernels.cumsum(np.array([1, 2, 3], "float32"))
        array([1., 3., 6.], dtype=float32)
    """
    c = Call("cumsum", impl)
    axis = _axis(c, x, axis)
    c.input("x", x, _letters(x, axis, "n"), ANY[:6])
    c.output("y", out, _letters(x, axis, "n"), accumulate=accumulate, flag="accumulate")
    return c.run(n=c.size["n"], dtype=c.dtype, reverse=reverse, **_extents(x, axis))


def sort(x: Any, *, descending: bool = False, out: Any = None, impl: str | None = None) -> Any:
    """Sorts the last axis, stable; NaN counts as the largest value.

    Args:
        x: (..., n) of any dtype.
        descending: the largest first.
        out: the shape of `x`, or None.
        impl: a candidate.

    Returns:
        The sorted values, and where each came from, int64.

    Example:
        >>> kernels.sort(np.array([3, 1, 2], "float32"))
        (array([1., 2., 3.], dtype=float32), array([1, 2, 0]))
    """
    c = Call("sort", impl)
    c.input("x", x, "*rows n", ANY)
    c.output("y", out, "*rows n")
    c.output("index", None, "*rows n", "int64")
    return c.run(rows=c.size["rows"], n=c.size["n"], dtype=c.dtype, descending=descending)


def check_index(index: Any, low: int, high: int, *, ignore: int | None = None) -> None:
    """Raises unless every index is in range.

    Args:
        index: any shape, int32 or int64.
        low, high: least index, and the one after the largest.
        ignore: an index that passes too.

    Raises:
        IndexError: the first that is out of range, with its place.

    Example:
        >>> kernels.check_index(np.array([0, 4]), 0, 4)
        Traceback (most recent call last):
        IndexError: check_index: index must be in [0, 4), got 4 at position 1
    """
    c = Call("check_index")
    c.input("index", index, "*n", ("int32", "int64"))
    c.check_index("index", low, high, ignore)


def take(x: Any, index: Any, axis: int = 0, *, out: Any = None, impl: str | None = None) -> Any:
    """Entries of an axis by their index.

    Args:
        x: any shape and dtype.
        index: (m) int64, each in [0, n) of that axis.
        axis: the axis.
        out: the shape of `x` with m entries along the axis, or None.
        impl: a candidate.

    Returns:
        `out`, or a new array.

    Raises:
        IndexError: an index out of range, no such axis.

    Example:
        >>> kernels.take(np.array([1, 2, 3], "float32"), np.array([2, 0]))
        array([3., 1.], dtype=float32)
    """
    c = Call("take", impl)
    axis = _axis(c, x, axis)
    c.input("x", x, _letters(x, axis, "n"), ANY)
    c.input("index", index, "m", "int64")
    c.check_index("index", 0, c.size["n"])
    c.output("y", out, _letters(x, axis, "m"))
    return c.run(n=c.size["n"], m=c.size["m"], dtype=c.dtype, **_extents(x, axis))


def put(
    out: Any, index: Any, dy: Any, axis: int = 0, *, assign: bool = False, skip: int = -1, impl: str | None = None
) -> Any:
    """Adds entries to those that `index` names, or assigns them, in order.

    Args:
        out: any shape and dtype, changed in place.
        index: (m) int64, each in [0, n) of the axis.
        dy: the shape of `out` with m entries along the axis.
        axis: the axis.
        assign: assigns instead of adding; needed for dtypes that are not floating.
        skip: an index whose entries are left out, or -1.
        impl: a candidate.

    Returns:
        `out`.

    Raises:
        IndexError: an index out of range, no such axis.

    Example:
        >>> kernels.put(np.zeros(3, "float32"), np.array([2, 2]), np.ones(2, "float32"))
        array([0., 0., 2.], dtype=float32)
    """
    c = Call("put", impl)
    axis = _axis(c, out, axis)
    dtype = c.dtype_of("out", out, ANY if assign else ANY[:4])
    c.input("dy", dy, _letters(out, axis, "m"), dtype)
    c.input("index", index, "m", "int64")
    c.output("dx", out, _letters(out, axis, "n"), dtype)
    c.check_index("index", 0, c.size["n"])
    return c.run(
        n=c.size["n"], m=c.size["m"], skip=skip, dtype=dtype, assign=assign, accumulate=True, **_extents(out, axis)
    )


def gather(x: Any, index: Any, axis: int = -1, *, out: Any = None, impl: str | None = None) -> Any:
    """For each place of `index` the element that it names along an axis.

    Args:
        x: any shape and dtype.
        index: int64, the shape of `x` but along the axis.
        axis: the axis.
        out: the shape of `index`, or None.
        impl: a candidate.

    Returns:
        `out`, or a new array.

    Raises:
        IndexError: an index out of range, no such axis.

    Example:
        >>> kernels.gather(np.array([[1, 2], [3, 4]], "float32"), np.array([[1], [0]]))
        array([[2.],
               [3.]], dtype=float32)
    """
    c = Call("gather", impl)
    axis = _axis(c, x, axis)
    c.input("x", x, _letters(x, axis, "n"), ANY)
    c.input("index", index, _letters(x, axis, "m"), "int64")
    c.check_index("index", 0, c.size["n"])
    c.output("y", out, _letters(x, axis, "m"))
    return c.run(n=c.size["n"], m=c.size["m"], dtype=c.dtype, **_extents(x, axis))


def scatter_add(out: Any, index: Any, x: Any, axis: int = -1, *, impl: str | None = None) -> Any:
    """Adds each element to the one that `index` names along an axis, in order.

    Args:
        out: any shape, floating, changed in place.
        index: int64, the shape of `x`.
        x: the shape of `out` but along the axis.
        axis: the axis.
        impl: a candidate.

    Returns:
        `out`.

    Raises:
        IndexError: an index out of range, no such axis.

    Example:
        >>> kernels.scatter_add(np.zeros(3, "float32"), np.array([2, 2]), np.ones(2, "float32"))
        array([0., 0., 2.], dtype=float32)
    """
    c = Call("scatter_add", impl)
    axis = _axis(c, out, axis)
    dtype = c.dtype_of("out", out, ANY[:4])
    c.input("x", x, _letters(out, axis, "m"), dtype)
    c.input("index", index, _letters(out, axis, "m"), "int64")
    c.output("y", out, _letters(out, axis, "n"), dtype)
    c.check_index("index", 0, c.size["n"])
    return c.run(n=c.size["n"], m=c.size["m"], dtype=dtype, **_extents(out, axis))


def nonzero(x: Any, *, impl: str | None = None) -> Any:
    """Places of the true elements, ascending.

    Args:
        x: any shape, bool.
        impl: a candidate.

    Returns:
        int64 places in the flat array.

    Example:
        >>> kernels.nonzero(np.array([True, False, True]))
        array([0, 2])
    """
    c = Call("nonzero", impl)
    c.input("x", x, "*n", "bool")
    c.output("index", None, "n", "int64")
    c.output("count", None, "1", "int64")
    index, count = c.run(n=c.size["n"])
    return index[: int(count[0])]
