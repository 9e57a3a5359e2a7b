"""Sums, means, variances, extrema and their places, products, truth values, running sums."""

import numpy as np

import smelt
from tests.cases import FLOATING, TAILS, Case, exact
from tests.reference import reduce as reference

# Shape, axis, keepdims: rows and columns around the vectors, several runs of axes, more rows, columns and elements than
# one chunk has (8192 of a row, 256 rows, 256 columns), no axis, high rank.
ROWS = [((n,), None, False) for n in TAILS if n] + [((3, n), 1, False) for n in (1, 7, 8, 9, 17, 33)]
COLUMNS = [((n, 17), 0, False) for n in (1, 2, 9)] + [((3, 5, n), 1, False) for n in (1, 7, 8, 9, 16, 33)]
AXES = [
    ((), None, False), ((), (), True), ((4, 5), (), False), ((3, 17), -1, True), ((3, 17), None, True),
    ((4, 5, 6), (0, 2), False), ((4, 5, 6), (0, 2), True), ((4, 5, 6), (2, 0), False), ((4, 5, 6), (1, 2), True),
    ((4, 5, 6), (-3, 1), False), ((4, 5, 6), (0, -2, 2), False), ((2, 1, 3, 1, 2, 2, 1, 3), (1, 4, 7), False),
    ((2, 1, 3, 1, 2, 2, 1, 3), None, True), ((1, 1, 5), (0, 1), False),
]  # fmt: skip
LARGE = [((20011,), None, False), ((3, 9000), 1, True), ((700, 300), 0, False), ((2, 600, 5), 1, False)]
LARGE += [((3, 40, 259), (0, 2), False), ((300, 2, 300), (0, 2), False)]
EMPTY = [((0,), None, False), ((3, 0), 1, False), ((3, 0), (0, 1), True), ((3, 0, 2), (0, 1), False)]
NOTHING_OUT = [((0, 3), 1, False), ((3, 0), 0, True), ((2, 0, 3), (0, 2), False)]


def _name(shape, axis, keepdims):
    text = "x".join(map(str, shape)) or "scalar"
    axes = "all" if axis is None else "_".join(map(str, axis)) or "none" if isinstance(axis, tuple) else str(axis)
    return f"{text}_{axes}{'_kept' if keepdims else ''}"


def _quiet(f):
    def run(*args, **kwargs):
        with np.errstate(all="ignore"):
            return f(*args, **kwargs)

    return run


def _sum_bound(x, axis, keepdims, u):
    # In any order of n terms at most n - 1 roundings in each (Higham, 2002, sec. 4.2).
    return (reference.count(x, axis) + 2) * u * np.abs(x).sum(axis=axis, keepdims=keepdims)


def _mean_bound(x, axis, keepdims, u):
    # The sum's, and two roundings: 1 / n and the product.
    n = max(reference.count(x, axis), 1)
    return (_sum_bound(x, axis, keepdims, u) + 3 * u * np.abs(x.sum(axis=axis, keepdims=keepdims))) / n


def _prod_bound(x, axis, keepdims, u):
    return (reference.count(x, axis) + 2) * u * np.abs(x.prod(axis=axis, keepdims=keepdims))


def _var_bound(x, axis, keepdims, u, correction=0):
    # Each distance has the mean's error e and a rounding; its square twice that of it, and the sum's error.
    n = reference.count(x, axis)
    d = np.abs(x - reference.mean(x, axis, True))
    e = _mean_bound(x, axis, True, u) + u * d
    squares = (2 * d * e + e * e + (n + 5) * u * d * d).sum(axis=axis, keepdims=keepdims)
    return squares / max(n - correction, 1)


def _std_bound(x, axis, keepdims, u, correction=0):
    # The root halves a relative error (and doubles it at most where it is not small), and rounds once.
    v = reference.var(x, axis, keepdims, correction)
    return _var_bound(x, axis, keepdims, u, correction) / np.sqrt(v) + u * np.sqrt(v)


def _nothing(x, axis, keepdims, u):
    return 0.0


def distinct(rng, shape):
    """No two elements within 0.3 of each other."""
    n = int(np.prod(shape, dtype=np.int64))
    return rng.permutation(np.arange(n, dtype=np.float64) - n // 2).reshape(shape) * 0.5


def whole(rng, shape):
    """Small whole numbers: sums have no rounding in float32, whatever their order."""
    return rng.integers(-4, 5, size=shape).astype(np.float64)


def normal(rng, shape):
    return rng.normal(size=shape) + 0.5


def around_one(rng, shape):
    return rng.uniform(0.8, 1.25, size=shape) * rng.choice([-1, 1], size=shape)


# Op, definition, inputs, bound.
REDUCTIONS = {
    "sum": (smelt.sum, reference.total, normal, _sum_bound),
    "mean": (smelt.mean, reference.mean, normal, _mean_bound),
    "var": (smelt.var, reference.var, normal, _var_bound),
    "std": (smelt.std, reference.std, normal, _std_bound),
    "prod": (smelt.prod, reference.prod, around_one, _prod_bound),
    "max": (smelt.max, np.max, distinct, _nothing),
    "min": (smelt.min, np.min, distinct, _nothing),
}
BOOLEAN = {"any": (smelt.any, np.any), "all": (smelt.all, np.all)}
POSITIONS = {"argmax": (smelt.argmax, True), "argmin": (smelt.argmin, False)}


def _reduction(name, shape, axis, keepdims, what="", draw=None, bound=None, grad=True, dtypes=FLOATING):
    op, formula, own_draw, own_bound = REDUCTIONS[name]
    draw, bound = draw or own_draw, bound or own_bound
    return Case(
        name=f"{name}[{_name(shape, axis, keepdims)}{what}]",
        op=lambda x: op(x, axis=axis, keepdims=keepdims),
        reference=_quiet(lambda x: np.asarray(formula(x, axis=axis, keepdims=keepdims))),
        inputs=lambda rng: [draw(rng, shape)],
        bound=_quiet(lambda given, y, u: bound(given[0], axis, keepdims, u)),
        grad=(0,) if grad else (),
        dtypes=dtypes,
    )


def _plain(name):
    def small(how):  # a gradient of prod runs a kernel for each element
        return name != "prod" or reference.count(np.empty(how[0]), how[1]) < 50

    cases = [_reduction(name, *how, grad=small(how)) for how in (*ROWS, *COLUMNS, *AXES, *NOTHING_OUT)]
    if name == "std":  # one element has no variance, and its root no slope there
        cases = [_reduction(name, *h, grad=reference.count(np.empty(h[0]), h[1]) > 1) for h in (*ROWS, *COLUMNS, *AXES)]
    cases += [_reduction(name, *how, grad=small(how)) for how in LARGE]
    return cases


def _exact_sum(name, how):
    """Whole numbers are added without error: all that is left is the rounding of the result."""

    def bound(x, axis, keepdims, u):
        return 0.0 if name == "sum" else 3 * u * np.abs(reference.mean(x, axis, keepdims))

    return _reduction(name, *how, what="_whole", draw=whole, bound=bound, grad=False)


def _corrected(name, correction):
    op, formula, _, bound = REDUCTIONS[name]
    return Case(
        name=f"{name}[correction_{correction}]",
        op=lambda x: op(x, axis=1, correction=correction),
        reference=_quiet(lambda x: formula(x, axis=1, correction=correction)),
        inputs=lambda rng: [rng.normal(size=(3, 9))],
        bound=_quiet(lambda given, y, u: bound(given[0], 1, False, u, correction)),
        grad=(0,),
        dtypes=FLOATING,
    )


def _far_from_zero(rng, shape):
    return 100 + rng.normal(size=shape)


SPECIAL = np.array(
    [
        [1.0, np.nan, 2.0, np.nan, 0.5],
        [np.inf, 1.0, -np.inf, 2.0, 0.0],
        [np.inf, 1.0, 2.0, 3.0, 4.0],
        [-np.inf, 1.0, 2.0, -3.0, 4.0],
        [-np.inf, -np.inf, -np.inf, -np.inf, -np.inf],
        [np.inf, np.inf, np.inf, np.inf, np.inf],
        [0.0, -0.0, 0.0, -0.0, 0.0],
        [1e-45, 1e-40, -1e-40, 2.0**-126, 0.0],
        [-1.0, -2.0, -3.0, -4.0, np.nan],
        [np.nan, np.inf, -np.inf, 1.0, 2.0],
    ]
)


def _special(name, axis):
    """NaN, infinities and subnormals stay in their rows; a vector's tail adds nothing."""
    return _reduction(name, SPECIAL.shape, axis, False, what="_special", draw=lambda rng, shape: SPECIAL, grad=False)


def _dtyped(name, op, formula, dtype, axis, result=""):
    high = 2 if dtype == "bool" else 200

    def inputs(rng):
        x = rng.integers(0, high, size=(5, 7))
        return [(x - (0 if dtype in ("bool", "uint8") else 100)).astype(dtype)]

    return Case(
        name=f"{name}[{dtype}_{axis}]",
        op=lambda x: op(x, axis=axis),
        reference=lambda x: np.asarray(formula(x, axis=axis)),
        inputs=inputs,
        bound=lambda given, y, u: 40 * u * np.abs(given[0].astype(np.float64)).max() ** 2,  # means: 35 terms
        dtypes=("float32",),
        result=result,
    )


def _extreme(name, op, formula, dtype):
    """The largest and smallest integers, sums that wrap included."""
    values = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, np.iinfo(dtype).max, 3, 0], dtype)
    return Case(f"{name}[{dtype}_extreme]", op, lambda x: np.asarray(formula(x)), lambda rng: [values], exact,
                dtypes=("float32",))  # fmt: skip


def _truth(name, shape, axis, keepdims, share):
    op, formula = BOOLEAN[name]
    return Case(
        name=f"{name}[{_name(shape, axis, keepdims)}_{share}]",
        op=lambda x: op(x, axis=axis, keepdims=keepdims),
        reference=lambda x: np.asarray(formula(x != 0, axis=axis, keepdims=keepdims)),
        inputs=lambda rng: [np.where(rng.random(shape) < share, rng.normal(size=shape), 0)],
        bound=exact,
        dtypes=FLOATING,
    )


def _position(name, shape, axis, keepdims, draw=whole, what=""):
    op, largest = POSITIONS[name]
    return Case(
        name=f"{name}[{_name(shape, axis, keepdims)}{what}]",
        op=lambda x: op(x, axis=axis, keepdims=keepdims),
        reference=lambda x: reference.position(x, largest, axis, keepdims),
        inputs=lambda rng: [draw(rng, shape)],
        bound=exact,
        dtypes=FLOATING,
    )


def _cumsum(shape, axis, what="", draw=normal, grad=True):
    def bound(given, y, u):
        # Carried in float64, then rounded once.
        terms = np.cumsum(np.abs(given[0]), axis=axis)
        return (given[0].shape[axis] + 1) * 2.0**-53 * terms + (u * np.abs(y) if u > 2.0**-53 else 0)

    return Case(
        name=f"cumsum[{'x'.join(map(str, shape))}_{axis}{what}]",
        op=lambda x: smelt.cumsum(x, axis=axis),
        reference=_quiet(lambda x: reference.cumsum(x, axis)),
        inputs=lambda rng: [draw(rng, shape)],
        bound=_quiet(bound),
        grad=(0,) if grad else (),
        dtypes=FLOATING,
    )


def _zeros_among(rng, shape):
    """One zero in a row, two in the next: the slope is the product of the others."""
    x = around_one(rng, shape)
    x[0, 2] = x[1, 0] = x[1, 3] = 0
    return x


CASES = [
    *(case for name in REDUCTIONS for case in _plain(name)),
    *(_exact_sum(name, how) for name in ("sum", "mean") for how in (*ROWS, *COLUMNS, *AXES, *LARGE)),
    *(_reduction(name, *how) for name in ("sum", "prod") for how in EMPTY),
    *(_reduction(name, *how, grad=False) for name in ("mean", "var", "std") for how in EMPTY),
    *(_corrected(name, c) for name in ("var", "std") for c in (1, 2.5)),
    Case("var[correction_n]", lambda x: (smelt.var(x, correction=1), smelt.std(x, axis=0, correction=1)),
         lambda x: (np.array(np.nan), np.array(np.nan)), lambda rng: [rng.normal(size=1)], exact, dtypes=FLOATING),
    *(_reduction(name, (3, 33), 1, False, what="_far", draw=_far_from_zero, grad=False) for name in ("var", "std")),
    _reduction("prod", (3, 5), 1, False, what="_zeros", draw=_zeros_among),
    *(_special(name, axis) for name in REDUCTIONS for axis in (0, 1) if name != "std"),
    *(_dtyped(name, op, formula, dtype, axis)
      for name, op, formula in (("sum", smelt.sum, reference.total), ("max", smelt.max, np.max), ("min", smelt.min, np.min),
                                ("any", smelt.any, np.any), ("all", smelt.all, np.all),
                                ("argmax", smelt.argmax, lambda x, axis: reference.position(x, True, axis)),
                                ("argmin", smelt.argmin, lambda x, axis: reference.position(x, False, axis)))
      for dtype in ("int64", "int32", "uint8", "bool") for axis in (None, 0, 1)),
    *(_dtyped("mean", smelt.mean, reference.mean, dtype, axis, "float32")
      for dtype in ("int64", "int32", "uint8", "bool") for axis in (None, 0, 1)),
    *(_dtyped("var", smelt.var, reference.var, dtype, 1, "float32") for dtype in ("int64", "int32", "uint8")),
    *(_dtyped("prod", smelt.prod, reference.prod, dtype, axis) for dtype in ("uint8", "bool") for axis in (0, 1)),
    *(_extreme(name, op, formula, dtype)
      for name, op, formula in (("sum", smelt.sum, reference.total), ("prod", smelt.prod, reference.prod),
                                ("max", smelt.max, np.max), ("min", smelt.min, np.min),
                                ("argmax", smelt.argmax, lambda x: reference.position(x, True)),
                                ("cumsum", smelt.cumsum, reference.cumsum))
      for dtype in ("int64", "int32", "uint8")),
    *(_truth(name, *how, share) for name in BOOLEAN for how in (*ROWS, *AXES, *EMPTY, *NOTHING_OUT)
      for share in (0.0, 0.9, 1.0)),
    *(Case(f"{name}[special_{axis}]", lambda x, op=op, axis=axis: op(x, axis=axis),
           lambda x, formula=formula, axis=axis: formula(x != 0, axis=axis), lambda rng: [SPECIAL], exact,
           dtypes=FLOATING) for name, (op, formula) in BOOLEAN.items() for axis in (0, 1)),
    *(_position(name, *how) for name in POSITIONS
      for how in (*ROWS, *COLUMNS, ((), None, True), ((4, 5, 6), None, True), ((4, 5, 6), 1, True), ((3, 70, 130), 1, False),
                  ((2, 1, 3, 1, 2, 2, 1, 3), -4, False), ((0, 3), 1, False), ((3, 0), 0, True))),
    *(_position(name, SPECIAL.shape, axis, False, lambda rng, shape: SPECIAL, "_special")
      for name in POSITIONS for axis in (None, 0, 1)),
    *(_cumsum((n,), 0) for n in TAILS),
    *(_cumsum(*how) for how in [((3, 17), -1), ((3, 17), 0), ((4, 5, 70), 1), ((2, 1, 3, 1, 2, 2, 1, 3), 2), ((0, 3), 0),
                                ((3, 0), 0), ((20011,), -1)]),
    *(_cumsum(SPECIAL.shape, axis, "_special", lambda rng, shape: SPECIAL, False) for axis in (0, 1)),
    *(Case(f"cumsum[{dtype}]", lambda x: smelt.cumsum(x, axis=0), lambda x: reference.cumsum(x, 0),
           lambda rng, dtype=dtype: [rng.integers(0, 2 if dtype == "bool" else 200, size=(9, 5)).astype(dtype)], exact,
           dtypes=("float32",)) for dtype in ("int64", "int32", "uint8", "bool")),
]  # fmt: skip
