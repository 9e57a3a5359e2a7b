"""matmul and linear: every transposition, batches, vectors, and extents around the tiles of every instruction set."""

import numpy as np

import smelt
from tests.cases import Case
from tests.reference import gemm as reference

# Around the tiles: rows 4, 6 and 14, columns 8, 16 and 32, depth blocks 256, 320 and 384; and primes.
SHAPES = [
    (1, 1, 1), (3, 5, 7), (4, 8, 16), (5, 9, 17), (13, 31, 63), (14, 32, 64), (15, 33, 65), (1, 100, 37), (100, 1, 37),
    (37, 41, 1), (6, 16, 255), (7, 17, 257), (29, 47, 385), (64, 96, 769), (130, 67, 128), (17, 530, 19),
]  # fmt: skip
EMPTY = [(0, 3, 4), (3, 0, 4), (3, 4, 0)]


def _matmul(m, n, k, transpose_a, transpose_b, batch_a=(), batch_b=()):
    def inputs(rng):
        a = rng.normal(size=(*batch_a, *((k, m) if transpose_a else (m, k))))
        b = rng.normal(size=(*batch_b, *((n, k) if transpose_b else (k, n))))
        return [a, b]

    def bound(given, result, u):
        a, b = given
        a = np.swapaxes(a, -1, -2) if transpose_a else a
        b = np.swapaxes(b, -1, -2) if transpose_b else b
        return reference.dot_bound(a, b, u)

    letters = ("t" if transpose_a else "n") + ("t" if transpose_b else "n")
    batches = "".join(f"_{'x'.join(map(str, b)) or '1'}" for b in (batch_a, batch_b)) if batch_a or batch_b else ""
    return Case(
        name=f"matmul[{m}x{n}x{k}_{letters}{batches}]",
        op=lambda a, b: smelt.matmul(a, b, transpose_a, transpose_b),
        reference=lambda a, b: reference.matmul(a, b, transpose_a, transpose_b),
        inputs=inputs,
        bound=bound,
        grad=(0, 1),
        dtypes=("float32", "float64", "bfloat16", "float16"),
        flops=2.0 * m * n * k,
        nbytes=4.0 * (m * n + m * k + n * k),
    )


def _linear(m, n, k, bias, activation, act):
    def inputs(rng):
        return [rng.normal(size=(m, k)), rng.normal(size=(n, k)), *([rng.normal(size=n)] if bias else [])]

    def bound(given, result, u):
        x, w, *b = given
        # The activations here have slopes of at most 1.13, and errors of their own below 8 units.
        size = reference.dot_bound(x, w.T, u) + (np.abs(b[0]) * u if b else 0)
        return 1.13 * size + 8 * u * (np.abs(result) + 1e-3)

    return Case(
        name=f"linear[{m}x{n}x{k}{'_bias' if bias else ''}{'_' + activation if activation else ''}]",
        op=lambda x, w, *b: smelt.linear(x, w, b[0] if b else None, activation),
        reference=lambda x, w, *b: act(reference.linear(x, w, b[0] if b else None)),
        inputs=inputs,
        bound=bound,
        grad=(0, 1, 2) if bias else (0, 1),
        flops=2.0 * m * n * k,
        nbytes=4.0 * (m * n + m * k + n * k),
    )


def _vector(shape_a, shape_b):
    return Case(
        name=f"matmul[vector_{shape_a}_{shape_b}]".replace(" ", ""),
        op=smelt.matmul,
        reference=np.matmul,
        inputs=lambda rng: [rng.normal(size=shape_a), rng.normal(size=shape_b)],
        bound=lambda given, result, u: (given[0].shape[-1] + 2) * u * np.matmul(np.abs(given[0]), np.abs(given[1])),
        grad=(0, 1),
    )


def _lazy():
    """The mark that .T leaves is consumed by the product, together with the flag."""
    return Case(
        name="matmul[lazy_transpose]",
        op=lambda a, b: smelt.matmul(a.T, b.swapaxes(-1, -2), transpose_a=True),
        reference=lambda a, b: a @ b.T,
        inputs=lambda rng: [rng.normal(size=(9, 21)), rng.normal(size=(33, 21))],
        bound=lambda given, result, u: reference.dot_bound(given[0], given[1].T, u),
        grad=(0, 1),
    )


CASES = [
    *(_matmul(*shape, ta, tb) for shape in SHAPES for ta in (False, True) for tb in (False, True)),
    *(_matmul(*shape, False, False) for shape in EMPTY),
    *(
        _matmul(5, 7, 9, ta, tb, batch_a, batch_b)
        for ta in (False, True)
        for tb in (False, True)
        for batch_a, batch_b in [((3,), (3,)), ((3,), ()), ((), (3,)), ((2, 1), (1, 3)), ((2, 3), (3,)), ((0,), (0,))]
    ),
    *(
        _linear(*shape, bias, None, lambda z: z)
        for shape in [(5, 3, 7), (33, 65, 129), (0, 3, 4), (1, 1, 1)]
        for bias in (False, True)
    ),
    _linear(9, 17, 33, True, "relu", lambda z: np.maximum(z, 0)),
    _linear(9, 17, 33, True, "tanh", np.tanh),
    _linear(9, 17, 33, True, "sigmoid", lambda z: 1 / (1 + np.exp(-z))),
    _linear(9, 17, 33, False, "silu", lambda z: z / (1 + np.exp(-z))),
    _vector((7,), (7,)),
    _vector((7,), (7, 3)),
    _vector((3, 7), (7,)),
    _vector((2, 3, 7), (7,)),
    _lazy(),
]  # fmt: skip
