"""Filling, moving, element by element, random numbers: one kernel each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import _core
from ._call import Call, choose, strides

__all__ = [
    "arange",
    "binary",
    "cast",
    "copy",
    "dropout",
    "fill",
    "random",
    "unary",
    "unary_backward",
    "where",
]

ANY = ("float32", "float64", "bfloat16", "float16", "int32", "int64", "uint8", "bool")
_GIVES_BOOL = ("isnan", "isinf", "logical_not")
# Functions of integers, of bool, and those without a gradient; kernels trust that the others do not come.
_UNARY_BOOL = _GIVES_BOOL
_UNARY_INTEGER = ("neg", "abs", "sign", "square", "floor", "ceil", "round", "trunc", "relu", "clip", *_GIVES_BOOL)
_NO_GRADIENT = ("sign", "floor", "ceil", "round", "trunc", *_GIVES_BOOL)
_BINARY_NOT_BOOL = ("sub", "div", "floor_div", "remainder", "pow")
_COMPARES = ("logical_and", "logical_or", "logical_xor", "eq", "ne", "lt", "le", "gt", "ge")
_KINDS = ("uniform", "normal", "integers", "bits")


def fill(out: Any, value: float, *, impl: str | None = None) -> Any:
    """Writes one value to every element.

    Args:
        out: any shape and dtype.
        value: the value.
        impl: a candidate.

    Returns:
        `out`.

    Example:
        >>> kernels.fill(np.empty(3, "float32"), 2)
        array([2., 2., 2.], dtype=float32)
    """
    c = Call("fill", impl)
    dtype = c.dtype_of("out", out, ANY)
    c.output("y", out, "*n", dtype)
    return c.run(n=c.size["n"], value=value, dtype=dtype)


def arange(out: Any, start: float = 0, step: float = 1, *, impl: str | None = None) -> Any:
    """Writes start + i step.

    Args:
        out: (n) of any dtype but bool.
        start: the first value.
        step: the distance of two values.
        impl: a candidate.

    Returns:
        `out`.

    Example:
        >>> kernels.arange(np.empty(3, "int64"), 5, 2)
        array([5, 7, 9])
    """
    c = Call("arange", impl)
    dtype = c.dtype_of("out", out, ANY[:-1])
    c.output("y", out, "n", dtype)
    return c.run(n=c.size["n"], start=start, step=step, dtype=dtype)


def cast(x: Any, dtype: str, *, accumulate: bool = False, out: Any = None, impl: str | None = None) -> Any:
    """Converts to another dtype; halves are rounded to the nearest, ties to even.

    Args:
        x: any shape and dtype.
        dtype: name of the result's.
        accumulate: adds to what `out` holds; floating `dtype` only.
        out: the shape of `x`, or None.
        impl: a candidate.

    Returns:
        `out`, or a new array; a tensor for bfloat16.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: no such dtype.

    Example:
        >>> kernels.cast(np.array([1.5, -2], "float32"), "int32")
        array([ 1, -2], dtype=int32)
    """
    c = Call("cast", impl)
    c.input("x", x, "*n", ANY)
    choose("cast", "dtype", dtype, ANY)
    if accumulate and dtype not in ANY[:4]:
        raise c.error(f"accumulate needs a floating dtype, got {dtype}")
    c.output("y", out, "*n", dtype, accumulate=accumulate, flag="accumulate")
    return c.run(n=c.size["n"], to=dtype, **{"from": c.dtype})


def copy(x: Any, axes: Sequence[int] | None = None, *, out: Any = None, impl: str | None = None) -> Any:
    """Copies, with the axes in another order.

    Args:
        x: any dtype, at most 8 axes.
        axes: which axis of `x` each of the result is; None keeps them.
        out: the result's shape, or None.
        impl: a candidate.

    Returns:
        `out`, or a new array.

    Raises:
        ValueError: axes that are no permutation, shapes that do not fit.

    Example:
        >>> kernels.copy(np.arange(4, dtype="float32").reshape(2, 2), (1, 0))
        array([[0., 2.],
               [1., 3.]], dtype=float32)
    """
    c = Call("copy", impl)
    letters = [f"n{i}" for i in range(len(getattr(x, "shape", ())))]
    c.input("x", x, " ".join(letters), ANY)
    order = list(range(len(letters))) if axes is None else [int(i) for i in axes]
    if sorted(order) != list(range(len(letters))):
        raise c.error(f"axes must be a permutation of {len(letters)} axes, got {tuple(order)}")
    c.output("y", out, " ".join(letters[i] for i in order))
    shape = [c.size[letter] for letter in letters]
    moved = [shape[i] for i in order]
    steps = strides(shape)
    return c.run(
        rank=len(shape), shape=moved, x_stride=[steps[i] for i in order], y_stride=strides(moved), dtype=c.dtype
    )


def unary(x: Any, op: str, *, a: float = 0.0, b: float = 0.0, out: Any = None, impl: str | None = None) -> Any:
    """A function of each element.

    Args:
        x: any shape; floating, or integers for a function that stays in them, such as ``"abs"``.
        op: such as ``"exp"``, ``"gelu"``, ``"clip"``, ``"isnan"``.
        a, b: slope of ``"leaky_relu"``, alpha of ``"elu"``, bounds of ``"clip"``.
        out: the shape of `x`, or None; bool for ``"isnan"``, ``"isinf"`` and ``"logical_not"``.
        impl: a candidate.

    Returns:
        `out`, or a new array.

    Raises:
        ValueError: an unknown `op`, shapes that do not fit.
        TypeError: a dtype that the function does not take.

    Example:
        >>> kernels.unary(np.array([-1, 2], "float32"), "relu")
        array([0., 2.], dtype=float32)
    """
    c = Call("unary", impl)
    number = choose("unary", "op", op, _core.UNARY)
    taken = ANY if op in _UNARY_BOOL else ANY[:-1] if op in _UNARY_INTEGER else ANY[:4]
    c.input("x", x, "*n", taken)
    c.output("y", out, "*n", "bool" if op in _GIVES_BOOL else None)
    return c.run(n=c.size["n"], a=a, b=b, dtype=c.dtype, op=number)


def unary_backward(
    saved: Any,
    dy: Any,
    op: str,
    *,
    a: float = 0.0,
    b: float = 0.0,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradient of such a function.

    Args:
        saved: any shape, floating: the result of sqrt, rsqrt, reciprocal, exp, expm1, tanh, sigmoid, relu; else the input.
        dy: the shape of `saved`.
        op: the function.
        a, b: as in the forward.
        accumulate: adds to what `out` holds.
        out: the shape of `saved`, or None.
        impl: a candidate.

    Returns:
        `out`, or a new array.

    Raises:
        ValueError: an unknown `op`, shapes that do not fit.

    Example:
        >>> kernels.unary_backward(np.array([0, 2], "float32"), np.ones(2, "float32"), "relu")
        array([0., 1.], dtype=float32)
    """
    c = Call("unary_backward", impl)
    number = choose("unary_backward", "op", op, {k: v for k, v in _core.UNARY.items() if k not in _NO_GRADIENT})
    c.input("saved", saved, "*n")
    c.input("dy", dy, "*n")
    c.output("dx", out, "*n", accumulate=accumulate, flag="accumulate")
    return c.run(n=c.size["n"], a=a, b=b, dtype=c.dtype, op=number)


def _broadcast(c: Call, arrays: dict[str, Any]) -> tuple[list[int], dict[str, list[int]]]:
    """The common shape of arrays, and the strides of each within it."""
    import numpy as np

    try:
        shape = list(np.broadcast_shapes(*(tuple(x.shape) for x in arrays.values())))
    except ValueError:
        given = ", ".join(f"{name} {tuple(x.shape)}" for name, x in arrays.items())
        raise c.error(f"shapes must broadcast, got {given}") from None
    steps = {}
    for name, x in arrays.items():
        own = [0 if n == 1 else s for n, s in zip(x.shape, strides(tuple(x.shape)))]
        steps[f"{name}_stride"] = [0] * (len(shape) - len(own)) + own
    c.size.update({f"n{i}": n for i, n in enumerate(shape)})
    return shape, steps


def _own_letters(name: str, x: Any) -> str:
    return " ".join(f"{name}{i}" for i in range(len(getattr(x, "shape", ()))))


def binary(a: Any, b: Any, op: str, *, accumulate: bool = False, out: Any = None, impl: str | None = None) -> Any:
    """A function of two elements, with broadcasting.

    Args:
        a: any shape and dtype; floating for ``"div"``, no bool for the other arithmetic but add and mul.
        b: the dtype of `a`, or a number.
        op: such as ``"add"``, ``"maximum"``, ``"lt"``.
        accumulate: adds to what `out` holds; add, sub, mul and div of floating dtypes only.
        out: the common shape, or None; bool for comparisons and logical functions.
        impl: a candidate.

    Returns:
        `out`, or a new array.

    Raises:
        ValueError: an unknown `op`, shapes that do not broadcast.

    Example:
        >>> kernels.binary(np.ones((2, 1), "float32"), np.array([1, 2], "float32"), "add")
        array([[2., 3.],
               [2., 3.]], dtype=float32)
    """
    c = Call("binary", impl)
    number = choose("binary", "op", op, _core.BINARY)
    taken = ANY[:4] if op == "div" else ANY[:-1] if op in _BINARY_NOT_BOOL else ANY
    c.input("a", a, _own_letters("a", a), taken)
    arrays = {"a": a}
    scalar: Any = 0
    if isinstance(b, (int, float)):
        scalar = b
    else:
        c.input("b", b, _own_letters("b", b), c.dtype)
        arrays["b"] = b
    if accumulate and (op not in ("add", "sub", "mul", "div") or c.dtype not in ANY[:4]):
        raise c.error(f"accumulate needs add, sub, mul or div of a floating dtype, got {op} of {c.dtype}")
    shape, steps = _broadcast(c, arrays)
    letters = " ".join(f"n{i}" for i in range(len(shape)))
    c.output("y", out, letters, "bool" if op in _COMPARES else None, accumulate=accumulate, flag="accumulate")
    return c.run(rank=len(shape), shape=shape, scalar=scalar, dtype=c.dtype, op=number, **steps)


def where(condition: Any, a: Any, b: Any, *, out: Any = None, impl: str | None = None) -> Any:
    """Elements of `a` where the condition holds, else of `b`, with broadcasting.

    Args:
        condition: bool.
        a, b: one dtype; None stands for zeros, once.
        out: the common shape, or None.
        impl: a candidate.

    Returns:
        `out`, or a new array.

    Raises:
        ValueError: shapes that do not broadcast, both None.

    Example:
        >>> kernels.where(np.array([True, False]), np.array([1, 2], "float32"), None)
        array([1., 0.], dtype=float32)
    """
    c = Call("where", impl)
    if a is None and b is None:
        raise c.error("needs a or b, got None for both")
    arrays = {name: x for name, x in (("a", a), ("b", b)) if x is not None}
    for name, x in arrays.items():
        c.input(name, x, _own_letters(name, x), c.dtype or ANY)
    c.input("condition", condition, _own_letters("condition", condition), "bool")
    shape, steps = _broadcast(c, {"condition": condition, **arrays})
    c.output("y", out, " ".join(f"n{i}" for i in range(len(shape))))
    return c.run(rank=len(shape), shape=shape, dtype=c.dtype, **steps)


def _generator(c: Call, seed: int, offset: int) -> None:
    import numpy as np

    c.from_host("generator", np.array([seed, offset], np.uint64).view(np.int64))


def random(
    out: Any,
    kind: str,
    a: float = 0.0,
    b: float = 1.0,
    *,
    seed: int = 0,
    offset: int = 0,
    counter: int = 0,
    impl: str | None = None,
) -> Any:
    """Random numbers from Philox4x32-10; element i takes lane i % 4 of counter offset + counter + i / 4.

    Args:
        out: any shape: floating for ``"uniform"`` and ``"normal"``, int64 for ``"integers"`` and ``"bits"``.
        kind: ``"uniform"`` in [a, b), ``"normal"`` with mean a and deviation b, ``"integers"`` in [a, b), or ``"bits"``.
        a, b: as `kind` says.
        seed, offset: of the generator.
        counter: of this call.
        impl: a candidate.

    Returns:
        `out`.

    Raises:
        ValueError: an unknown `kind`.

    Example:
        >>> kernels.random(np.empty(2, "int64"), "integers", 5, 6)
        array([5, 5])
    """
    c = Call("random", impl)
    number = choose("random", "kind", kind, _KINDS)
    dtype = c.dtype_of("out", out, ANY[:4] if kind in ("uniform", "normal") else ("int64",))
    if kind == "integers" and not a < b:
        raise c.error(f"a must be below b, got {a} and {b}")
    c.output("y", out, "*n", dtype)
    _generator(c, seed, offset)
    return c.run(n=c.size["n"], counter=counter, a=a, b=b, dtype=dtype, kind=number)


def dropout(
    x: Any,
    p: float,
    *,
    seed: int = 0,
    offset: int = 0,
    counter: int = 0,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """Zeros with probability p, else x / (1 - p); the same counters give the same mask, forward and backward.

    Args:
        x: any shape, floating.
        p: in [0, 1).
        seed, offset, counter: as for `random`.
        accumulate: adds to what `out` holds.
        out: the shape of `x`, or None.
        impl: a candidate.

    Returns:
        `out`, or a new array.

    Raises:
        ValueError: `p` out of range.

    Example:
        >>> kernels.dropout(np.ones(3, "float32"), 0.0)
        array([1., 1., 1.], dtype=float32)
    """
    c = Call("dropout", impl)
    if not 0 <= p < 1 or math.isnan(p):
        raise c.error(f"p must be in [0, 1), got {p}")
    c.input("x", x, "*n")
    c.output("y", out, "*n", accumulate=accumulate, flag="accumulate")
    _generator(c, seed, offset)
    return c.run(n=c.size["n"], counter=counter, p=p, dtype=c.dtype)
