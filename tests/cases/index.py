"""Reading and writing by index: repeated indices, every axis and dtype, ties and NaN in sorting."""

import numpy as np

import smelt
from tests.cases import Case, exact
from tests.reference import index as reference

FLOATS = ("float32", "float64", "bfloat16", "float16")


def _values(rng, shape, dtype):
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype == "float":
        return rng.normal(size=shape)
    return rng.integers(0 if dtype == "uint8" else -100, 100, size=shape).astype(dtype)


def _take(shape, index_shape, axis, dtype="float", index_dtype="int64"):
    return Case(
        name=f"take[{shape},{index_shape},{axis},{dtype},{index_dtype}]".replace(" ", ""),
        op=lambda x, i: smelt.take(x, i, axis),
        reference=lambda x, i: reference.take(x, i, axis % len(shape)),
        inputs=lambda rng: [
            _values(rng, shape, dtype),
            rng.integers(0, max(shape[axis], 1), size=index_shape).astype(index_dtype),
        ],
        bound=exact,
        grad=(0,) if dtype == "float" else (),
        dtypes=FLOATS,
    )


def _gather(shape, m, axis, dtype="float"):
    index_shape = (*shape[: axis % len(shape)], m, *shape[axis % len(shape) + 1 :])
    return Case(
        name=f"gather[{shape},{m},{axis},{dtype}]".replace(" ", ""),
        op=lambda x, i: smelt.gather(x, i, axis),
        reference=lambda x, i: reference.gather(x, i, axis % len(shape)),
        inputs=lambda rng: [_values(rng, shape, dtype), rng.integers(0, max(shape[axis], 1), size=index_shape)],
        bound=exact,
        grad=(0,) if dtype == "float" else (),
        dtypes=FLOATS,
    )


def _scatter_add(shape, m, axis, dtype="float"):
    axis = axis % len(shape)
    index_shape = (*shape[:axis], m, *shape[axis + 1 :])

    def bound(given, result, u):
        # An element is a sum of at most m + 1 terms.
        x, i, values = given
        return (m + 1) * u * reference.scatter_add(np.abs(x), i, np.abs(values), axis)

    return Case(
        name=f"scatter_add[{shape},{m},{axis},{dtype}]".replace(" ", ""),
        op=lambda x, i, v: smelt.scatter_add(x, i, v, axis),
        reference=lambda x, i, v: reference.scatter_add(x, i, v, axis),
        inputs=lambda rng: [
            _values(rng, shape, dtype),
            rng.integers(0, max(shape[axis], 1), size=index_shape),
            _values(rng, index_shape, dtype),
        ],
        bound=bound if dtype == "float" else exact,
        grad=(0, 2) if dtype == "float" else (),
    )


def _embedding(rows, features, index_shape, index_dtype="int64"):
    return Case(
        name=f"embedding[{rows}x{features},{index_shape},{index_dtype}]".replace(" ", ""),
        op=smelt.embedding,
        reference=lambda i, w: reference.take(w, i, 0),
        inputs=lambda rng: [
            rng.integers(0, max(rows, 1), size=index_shape).astype(index_dtype), rng.normal(size=(rows, features)),
        ],
        bound=exact,
        grad=(1,),
        dtypes=FLOATS,
    )  # fmt: skip


def _padded_embedding():
    """The padding row is read, and takes no gradient; both are values here."""

    def op(index, weight, dy):
        with smelt.enable_grad():
            leaf = weight.detach().requires_grad_()
            y = smelt.embedding(index, leaf, padding_index=2)
            y.backward(dy)
        return y.detach(), leaf.grad

    def ref(index, weight, dy):
        dw = np.zeros_like(weight)
        for at in np.ndindex(index.shape):
            if index[at] != 2:
                dw[index[at]] += dy[at]
        return reference.take(weight, index, 0), dw

    return Case(
        name="embedding[padding_index]",
        op=op,
        reference=ref,
        # Small integers: the sums are exact.
        inputs=lambda rng: [
            rng.integers(0, 4, size=(5, 6)), rng.normal(size=(4, 9)), rng.integers(-9, 9, size=(5, 6, 9)).astype(float),
        ],
        bound=exact,
    )  # fmt: skip


def _sortable(rng, shape, kind):
    n = int(np.prod(shape))
    if kind == "spaced":  # far enough apart that small steps change no order
        return (rng.permutation(n) - n / 2).reshape(shape) / 64
    x = rng.integers(-2, 3, size=shape).astype(float)
    if kind == "nan" and n:
        x.reshape(-1)[rng.permutation(n)[: max(n // 4, 1)]] = np.nan
        x.reshape(-1)[rng.permutation(n)[: max(n // 8, 1)]] = np.inf
    return x if kind in ("ties", "nan") else x.astype(kind)


def _sort(shape, axis, descending, kind):
    return Case(
        name=f"sort[{shape},{axis},{'descending' if descending else 'ascending'},{kind}]".replace(" ", ""),
        op=lambda x: (smelt.sort(x, axis, descending), smelt.argsort(x, axis, descending)),
        reference=lambda x: reference.sort(x, axis, descending),
        inputs=lambda rng: [_sortable(rng, shape, kind)],
        bound=exact,
        grad=(0,) if kind == "spaced" else (),
        dtypes=FLOATS if kind in ("ties", "nan") else ("float32", "float64"),
    )


def _topk(shape, k, axis, largest, kind):
    def ref(x):
        part = [slice(None)] * x.ndim
        part[axis] = slice(0, k)
        return tuple(y[tuple(part)] for y in reference.sort(x, axis, largest))

    return Case(
        name=f"topk[{shape},{k},{axis},{largest},{kind}]".replace(" ", ""),
        op=lambda x: smelt.topk(x, k, axis, largest),
        reference=ref,
        inputs=lambda rng: [_sortable(rng, shape, kind)],
        bound=exact,
        grad=(0,) if kind == "spaced" else (),
    )


def _triangle(shape, diagonal, lower, dtype="float"):
    name = "tril" if lower else "triu"
    return Case(
        name=f"{name}[{shape},{diagonal},{dtype}]".replace(" ", ""),
        op=lambda x: getattr(smelt, name)(x, diagonal),
        reference=lambda x: reference.triangle(x, diagonal, lower),
        inputs=lambda rng: [_values(rng, shape, dtype)],
        bound=exact,
        grad=(0,) if dtype == "float" else (),
        dtypes=FLOATS,
    )


def _one_hot(shape, classes, dtype="int64"):
    return Case(
        name=f"one_hot[{shape},{classes},{dtype}]".replace(" ", ""),
        op=lambda i: smelt.one_hot(i, classes),
        reference=lambda i: reference.one_hot(i, classes),
        inputs=lambda rng: [rng.integers(0, classes, size=shape).astype(dtype)],
        bound=exact,
        dtypes=("float32",),
    )


CASES = [
    _take((5,), (7,), 0),
    _take((5, 3), (2, 3), 0),
    _take((4, 6, 5), (9,), 1),
    _take((4, 6, 17), (2, 2), -1),
    _take((6, 33), (4,), 0, index_dtype="int32"),
    _take((6, 3), (4,), 0, index_dtype="uint8"),
    _take((6, 3), (), 0),
    _take((6, 3), (0,), 1),
    _take((6, 0), (3,), 0),
    *(_take((3, 5), (4,), 1, dtype) for dtype in ("int64", "int32", "uint8", "bool")),
    *(_gather((4, 5, 6), m, axis) for m in (1, 7) for axis in (0, 1, -1)),
    _gather((9,), 20, 0),
    _gather((3, 5), 0, 1),
    _gather((0, 5), 3, 1),
    *(_gather((3, 5), 4, 1, dtype) for dtype in ("int64", "int32", "uint8", "bool")),
    *(_scatter_add((4, 5, 6), m, axis) for m in (1, 7) for axis in (0, 1, -1)),
    _scatter_add((3,), 500, 0),  # every index many times
    _scatter_add((3, 5), 0, 1),
    *(_scatter_add((3, 5), 9, 1, dtype) for dtype in ("int64", "int32")),
    _embedding(7, 9, (4, 5)),
    _embedding(3, 17, (200,)),
    _embedding(1000, 1, (6,), "int32"),
    _embedding(5, 8, ()),
    _embedding(5, 8, (0,)),
    _padded_embedding(),
    *(
        _sort(shape, axis, descending, "spaced")
        for shape, axis in [((1,), 0), ((17,), -1), ((3, 8), 0), ((4, 5, 9), 1)]
        for descending in (False, True)
    ),
    *(
        _sort(shape, axis, descending, kind)
        for shape, axis in [((100,), 0), ((5, 33), -1)]
        for descending in (False, True)
        for kind in ("ties", "nan", "int64", "int32")
    ),
    _sort((3, 0), 1, False, "spaced"),
    *(
        _topk((4, 11, 3), k, axis, largest, kind)
        for k, axis in [(1, 1), (4, 0), (0, -1), (3, -1)]
        for largest in (True, False)
        for kind in ("spaced", "nan")
    ),
    *(
        _triangle(shape, d, lower)
        for shape in [(5, 5), (3, 7), (2, 6, 4)]
        for d in (-2, 0, 3)
        for lower in (True, False)
    ),
    _triangle((4, 4), 9, False),
    _triangle((0, 4), 0, True),
    *(_triangle((3, 5), 1, lower, dtype) for lower in (True, False) for dtype in ("int64", "uint8")),
    _one_hot((7,), 5),
    _one_hot((2, 3), 17, "int32"),
    _one_hot((4,), 1, "uint8"),
    _one_hot((0,), 3),
]
