"""Random tensors and dropout, element for element: the stream of Philox4x32-10 from a seed, and its place after a call."""

import numpy as np

import smelt
from tests.cases import FLOATING, TAILS, Case, exact, ulps
from tests.reference import random as reference

LARGE_SEED = 0x123456789ABCDEF0
# Blocks have 64 elements, and more than one piece for the threads has 8,192.
SHAPES = [(), *((n,) for n in TAILS), (63,), (64,), (65,), (3, 0, 2), (2, 1, 3, 1, 2, 2, 1, 3)]


def _name(what, shape):
    return f"{what}[{'x'.join(map(str, shape)) or 'scalar'}]"


def _like(name, op, formula, shape, bound, seed=7, dtypes=FLOATING):
    def run(x):
        smelt.manual_seed(seed)
        return op(x)

    n = int(np.prod(shape, dtype=np.int64))
    return Case(
        _name(name, shape), run, lambda x: formula(seed, 0, n).reshape(shape), lambda rng: [np.zeros(shape)], bound,
        dtypes=dtypes,
    )  # fmt: skip


def _halves(name):
    """In a half type too: at least 0, below 1, and no further from the exact number than one step."""

    def run(x):
        smelt.manual_seed(7)
        y = smelt.rand_like(x)
        return (y >= 0).all(), (y < 1).all(), y.float()

    return Case(
        f"rand[{name}]", run,
        lambda x: (np.array(True), np.array(True), reference.uniform(7, 0, x.size)),
        lambda rng: [np.zeros(20000)], lambda given, y, u: {"bfloat16": 2.0**-8, "float16": 2.0**-11}[name],
        dtypes=(name,), result="float32",
    )  # fmt: skip


def _integers(low, high, n):
    def run():
        smelt.manual_seed(LARGE_SEED)
        return smelt.randint(low, high, n)

    return Case(f"randint[{low}_{high}_{n}]", run, lambda: reference.integers(LARGE_SEED, 0, n, low, high), lambda rng: [],
                exact, dtypes=("float32",))  # fmt: skip


def _permutation(n):
    def run():
        smelt.manual_seed(3)
        return smelt.randperm(n)

    def definition():
        taken = (n + 3) // 4
        high, low = reference.words(3, 0, n)[:n], reference.words(3, taken, n)[:n]
        return np.argsort((high >> np.uint64(1) << np.uint64(33)) + low, kind="stable")

    return Case(f"randperm[{n}]", run, definition, lambda rng: [], exact, dtypes=("float32",))


def _sequence():
    """Each call takes the counters after those of the calls before it."""

    def run(x):
        smelt.manual_seed(LARGE_SEED)
        parts = (
            smelt.rand(5),
            smelt.randint(0, 100, 3),
            smelt.rand(0),
            smelt.dropout(x, 0.5),
            smelt.rand(1),
            smelt.rand(9),
        )
        offset = smelt.get_rng_state()["offset"]
        return parts[0], parts[1], parts[3], parts[5], smelt.tensor(offset)

    def definition(x):
        return (
            reference.uniform(LARGE_SEED, 0, 5), reference.integers(LARGE_SEED, 2, 3, 0, 100),
            reference.dropout(x, LARGE_SEED, 3, 0.5), reference.uniform(LARGE_SEED, 3 + 5 + 1, 9), np.array(3 + 5 + 1 + 3),
        )  # fmt: skip

    return Case("rand[sequence]", run, definition, lambda rng: [rng.normal(size=17)], exact, dtypes=("float32",))


def _dropout(shape, p, grad=True):
    def run(x):
        smelt.manual_seed(11)
        y = smelt.dropout(x, p)
        smelt.rand(5)  # the gradient draws the same mask again wherever the stream stands
        return y

    # Two roundings: 1 / (1 - p) and the product.
    return Case(
        f"dropout[{'x'.join(map(str, shape)) or 'scalar'}_{p}]", run, lambda x: reference.dropout(x, 11, 0, p),
        lambda rng: [rng.normal(size=shape)], ulps(2), (0,) if grad else (), FLOATING,
    )  # fmt: skip


CASES = [
    *(_like("rand", smelt.rand_like, reference.uniform, shape, exact, dtypes=("float32", "float64")) for shape in SHAPES),
    _like("rand", smelt.rand_like, reference.uniform, (9001,), exact, LARGE_SEED, ("float32", "float64")),
    *(_halves(dtype) for dtype in ("bfloat16", "float16")),
    # The logarithm, the root, the angle's functions and the products are of float64, in the reference too.
    *(_like("randn", smelt.randn_like, reference.normal, shape,
            lambda given, y, u: 8 * 2.0**-53 * (1 + np.abs(y)) + u * np.abs(y)) for shape in (*SHAPES, (9001,))),
    *(_integers(*how) for how in [(0, 1, 9), (0, 10, 0), (0, 10, 1), (-5, 6, 67), (0, 2**32 + 5, 33),
                                  (-(2**63), 2**63 - 1, 65), (0, 255, 9001)]),
    *(_permutation(n) for n in (0, 1, 2, 17, 300)),
    _sequence(),
    *(_dropout(shape, 0.3) for shape in SHAPES),
    *(_dropout((9001,), p, grad=False) for p in (0.1, 0.5)),
    *(_dropout((67,), p) for p in (0.0, 0.5, 0.999)),
    Case("dropout[evaluation]", lambda x: smelt.dropout(x, 0.5, training=False), lambda x: x,
         lambda rng: [rng.normal(size=19)], exact, (0,), FLOATING),
    Case("dropout[special]", lambda x: (smelt.manual_seed(11), smelt.dropout(x, 0.5))[1],
         lambda x: np.where(reference.dropout(np.ones(x.shape), 11, 0, 0.5) > 0, x * 2, x * 0),
         lambda rng: [np.array([np.nan, 1e-45, -1e-40, 0.0, 65504.0, 1.0])], exact, dtypes=("float32", "float64")),
]  # fmt: skip
