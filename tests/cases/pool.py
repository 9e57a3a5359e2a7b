"""Pooling: maxima, means, adaptive and global; overlap, padding, remainders, ties and NaN."""

import numpy as np

import smelt
from tests.cases import FLOATING, Case, exact, spaced
from tests.reference import pool as reference


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _ties(rng, shape, nan=0):
    """Few values, so that most windows have ties; some NaN."""
    x = rng.integers(-1, 2, size=shape).astype(float)
    x.reshape(-1)[rng.permutation(x.size)[:nan]] = np.nan
    return x


def _mean_bound(mean_of):
    def bound(given, result, u):
        # A sum of at most the window's elements, times the rounded inverse of their number: n + 2 units of the mean of |x|.
        (x,) = given
        return (x.shape[1] * x.shape[2] + 2) * u * mean_of(np.abs(x))

    return bound


def _window(shape, kernel, stride=None, padding=0, count_padding=True):
    k, p = _pair(kernel), _pair(padding)
    s = k if stride is None else _pair(stride)
    args = (shape, kernel, stride, padding)

    def cut(x):
        return [reference.windows(x.shape[1 + i], k[i], s[i], p[i]) for i in (0, 1)]

    def mean(x):
        return reference.pool(x, *cut(x), False, count_padding)

    largest = Case(
        name=f"max_pool2d[{args}]".replace(" ", ""),
        op=lambda x: smelt.max_pool2d(x, kernel, stride, padding),
        reference=lambda x: reference.pool(x, *cut(x), True),
        inputs=lambda rng: [spaced(rng, shape)],
        bound=exact,
        grad=(0,),
        dtypes=FLOATING,
    )
    average = Case(
        name=f"avg_pool2d[{args}{'' if count_padding else '_uncounted'}]".replace(" ", ""),
        op=lambda x: smelt.avg_pool2d(x, kernel, stride, padding, count_padding),
        reference=mean,
        inputs=lambda rng: [rng.normal(size=shape)],
        bound=_mean_bound(mean),
        grad=(0,),
        dtypes=FLOATING,
    )
    return [largest, average] if count_padding else [average]


def _adaptive(shape, size):
    rows, columns = _pair(size)

    def cut(x):
        return reference.adaptive_windows(x.shape[1], rows), reference.adaptive_windows(x.shape[2], columns)

    def mean(x):
        return reference.pool(x, *cut(x), False)

    return [
        Case(
            name=f"adaptive_max_pool2d[{shape},{size}]".replace(" ", ""),
            op=lambda x: smelt.adaptive_max_pool2d(x, size),
            reference=lambda x: reference.pool(x, *cut(x), True),
            inputs=lambda rng: [spaced(rng, shape)],
            bound=exact,
            grad=(0,),
            dtypes=FLOATING,
        ),
        Case(
            name=f"adaptive_avg_pool2d[{shape},{size}]".replace(" ", ""),
            op=lambda x: smelt.adaptive_avg_pool2d(x, size),
            reference=mean,
            inputs=lambda rng: [rng.normal(size=shape)],
            bound=_mean_bound(mean),
            grad=(0,),
            dtypes=FLOATING,
        ),
    ]


def _global(shape):
    return [
        Case(
            name=f"global_max_pool2d[{shape}]".replace(" ", ""),
            op=smelt.global_max_pool2d,
            reference=lambda x: x.max(axis=(1, 2)),
            inputs=lambda rng: [spaced(rng, shape)],
            bound=exact,
            grad=(0,),
            dtypes=FLOATING,
        ),
        Case(
            name=f"global_avg_pool2d[{shape}]".replace(" ", ""),
            op=smelt.global_avg_pool2d,
            reference=lambda x: x.mean(axis=(1, 2)),
            inputs=lambda rng: [rng.normal(size=shape)],
            bound=_mean_bound(lambda x: x.mean(axis=(1, 2))),
            grad=(0,),
            dtypes=FLOATING,
        ),
    ]


def _sequence(shape, kernel, stride, padding):
    step = stride or kernel

    def pooled(x, largest):
        columns = reference.windows(x.shape[1], kernel, step, padding)
        return reference.pool(x[:, None], [(0, 1, 1)], columns, largest)[:, 0]

    return [
        Case(
            name=f"max_pool1d[{shape},{kernel},{stride},{padding}]".replace(" ", ""),
            op=lambda x: smelt.max_pool1d(x, kernel, stride, padding),
            reference=lambda x: pooled(x, True),
            inputs=lambda rng: [spaced(rng, shape)],
            bound=exact,
            grad=(0,),
            dtypes=FLOATING,
        ),
        Case(
            name=f"avg_pool1d[{shape},{kernel},{stride},{padding}]".replace(" ", ""),
            op=lambda x: smelt.avg_pool1d(x, kernel, stride, padding),
            reference=lambda x: pooled(x, False),
            inputs=lambda rng: [rng.normal(size=shape)],
            bound=lambda given, result, u: (kernel + 2) * u * pooled(np.abs(given[0]), False),
            grad=(0,),
            dtypes=FLOATING,
        ),
    ]


def _gradient_of(op, x, dy):
    """The gradient as a value, where finite differences can't tell: at ties and NaN."""
    with smelt.enable_grad():
        leaf = x.detach().requires_grad_()
        y = op(leaf)
        y.backward(dy)
    return y.detach(), leaf.grad


def _tied(shape, kernel, stride, padding, nan):
    def cut(x):
        return [reference.windows(x.shape[1 + i], kernel, stride, padding) for i in (0, 1)]

    out = [len(c) for c in cut(np.zeros(shape))]
    return Case(
        name=f"max_pool2d[ties_{shape},{kernel},{stride},{padding},{nan}]".replace(" ", ""),
        op=lambda x, dy: _gradient_of(lambda t: smelt.max_pool2d(t, kernel, stride, padding), x, dy),
        reference=lambda x, dy: (reference.pool(x, *cut(x), True), reference.max_gradient(x, dy, *cut(x))),
        # Small integers add up without rounding, so the gradient is exact wherever windows overlap.
        inputs=lambda rng: [_ties(rng, shape, nan), rng.integers(1, 9, size=(shape[0], *out, shape[3])).astype(float)],
        bound=exact,
    )


def _with_nan(name, op, ref):
    def inputs(rng):
        x = rng.normal(size=(2, 6, 7, 9))
        x[0, 2, 3, 4] = x[1, 5, 6, 8] = np.nan
        x[1, 0, 0, 0] = np.inf
        x[1, 3, 3, :2] = -np.inf
        return [x]

    finite = lambda x: ref(np.where(np.isfinite(x), np.abs(x), 0))  # noqa: E731
    return Case(name=f"{name}[nan]", op=op, reference=ref, inputs=inputs, bound=_mean_bound(finite))


def _pool_3_2(largest):
    return lambda x: reference.pool(x, *(reference.windows(n, 3, 2, 1) for n in x.shape[1:3]), largest)


CASES = [
    *(case for c in (1, 3, 7, 8, 9, 16, 17, 64) for case in _window((2, 6, 5, c), 2)),
    *_window((1, 7, 9, 5), 3),  # a remainder is left out
    *_window((2, 8, 8, 3), 3, 2, 1),
    *_window((1, 6, 7, 4), 3, 1, 1),  # overlap
    *_window((1, 9, 8, 3), (2, 3), (3, 1), (1, 0)),
    *_window((1, 4, 9, 3), 1, 2),  # gaps
    *_window((2, 4, 5, 3), (4, 5)),  # the window is the image
    *_window((1, 3, 2, 3), (5, 4), 1, (1, 1)),  # the window is the padded image
    *_window((1, 1, 1, 2), 3, 1, 1),
    *_window((1, 37, 41, 5), 2, 1),  # more rows than one piece of work
    *_window((0, 6, 6, 3), 2),
    *_window((2, 6, 6, 0), 2),
    *_window((2, 8, 8, 3), 3, 2, 1, count_padding=False),
    *_window((1, 5, 4, 9), (3, 2), 1, (1, 1), count_padding=False),
    *_adaptive((2, 7, 5, 3), 3),
    *_adaptive((1, 8, 8, 17), (4, 1)),
    *_adaptive((1, 3, 2, 5), (5, 7)),  # more outputs than pixels
    *_adaptive((2, 6, 9, 8), (6, 9)),
    *_adaptive((0, 6, 9, 8), 2),
    *_global((2, 5, 7, 9)),
    *_global((1, 1, 1, 3)),
    *_global((3, 23, 29, 2)),
    *_sequence((2, 11, 3), 2, None, 0),
    *_sequence((2, 11, 9), 4, 3, 2),
    *_sequence((1, 5, 1), 5, None, 0),
    _tied((2, 6, 6, 9), 2, 2, 0, 0),
    _tied((2, 7, 8, 17), 3, 1, 1, 0),
    _tied((2, 7, 8, 5), 3, 2, 1, 40),
    _tied((1, 5, 5, 3), 3, 1, 1, 75),  # nothing but NaN
    _with_nan("max_pool2d", lambda x: smelt.max_pool2d(x, 3, 2, 1), _pool_3_2(True)),
    _with_nan("avg_pool2d", lambda x: smelt.avg_pool2d(x, 3, 2, 1), _pool_3_2(False)),
]
