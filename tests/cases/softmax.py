"""softmax and log_softmax along any axis: tails, rows with NaN and infinities, numbers that would overflow."""

import numpy as np

import smelt
from tests.cases import FLOATING, TAILS, Case
from tests.reference import softmax as reference

OPS = {"softmax": (smelt.softmax, reference.softmax), "log_softmax": (smelt.log_softmax, reference.log_softmax)}
# e^x below 2^-126 is flushed to 0 in float32.
FLUSHED = 2.0**-126


def _quiet(f):
    def run(*args):
        with np.errstate(all="ignore"):
            return f(*args)

    return run


def _bound(name, axis):
    def bound(given, y, u):
        x = given[0].astype(np.float64)
        if x.size == 0:
            return 0.0
        n = x.shape[axis]
        d = np.abs(x - x.max(axis=axis, keepdims=True))
        # A term: d is rounded, and its error is one of e^d relative to it, where d is not below the flush; exp is within 2
        # units. The weights of the sum are the terms, so its relative error is the mean of theirs, at most n - 1 more.
        p = np.nan_to_num(reference.softmax(x, axis))
        term = np.minimum(np.nan_to_num(d, posinf=0.0), 110) + 3
        total = (p * term).sum(axis=axis, keepdims=True) + n
        flushed = FLUSHED * n * (u > 2.0**-53)
        if name == "softmax":  # the reciprocal and the product round once each; in float64 the reference errs as much
            return (term + total + 3) * u * y * (1 if u > 2.0**-53 else 2) + flushed
        # The logarithm has the sum's relative error as an absolute one, and one unit; then a difference.
        size = np.nan_to_num(d, posinf=0.0) + np.abs(np.nan_to_num(y, neginf=0.0))
        return (size * 2 + total + 2) * u * (1 if u > 2.0**-53 else 2) + flushed

    return bound


def _case(name, shape, axis, what="", draw=None, grad=True, dtypes=FLOATING, result=""):
    op, formula = OPS[name]
    text = "x".join(map(str, shape))
    return Case(
        name=f"{name}[{text}_{axis}{what}]",
        op=lambda x: op(x, axis=axis),
        reference=_quiet(lambda x: formula(x.astype(np.float64), axis)),
        inputs=lambda rng: [draw(rng, shape) if draw else rng.normal(size=shape)],
        bound=_quiet(_bound(name, axis)),
        grad=(0,) if grad else (),
        dtypes=dtypes,
        result=result,
    )


SHAPES = [
    *(((n,), 0) for n in TAILS),
    *(((3, n), -1) for n in TAILS),
    ((3, 4), 0), ((4, 5, 6), 1), ((4, 5, 6), -3), ((2, 1, 3, 1, 2, 2, 1, 3), 2), ((2, 1, 3, 1, 2, 2, 1, 3), -1),
    ((5, 1), 1), ((0, 3), 1), ((3, 0), 0), ((2, 0, 3), 1), ((20011,), 0), ((700, 33), 1),
    ((2, 2048), 1), ((2, 2049), 1), ((3, 4999), 1),
]  # fmt: skip
SPECIAL = np.array(
    [
        [0.0, 1.0, np.nan, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
        [-np.inf, 0.0, 1.0, -np.inf, 2.0, 3.0, -np.inf, 1.0, 0.0],
        [np.inf, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
        [-np.inf, 7.0, -np.inf, -np.inf, -np.inf, -np.inf, -np.inf, -np.inf, -np.inf],
        [np.inf, -np.inf, np.nan, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        [-np.inf] * 9,
        [0.0] * 8 + [np.nan],
        [1e-45, -1e-40, 0.0, -0.0, 2.0**-126, 0.0, 0.0, 0.0, 0.0],
    ]
)


def _huge(rng, shape):
    """Differences up to 100 around 10,000: e^x alone would overflow."""
    return 10000 + rng.integers(-50, 50, size=shape).astype(np.float64)


def _rising(rng, shape):
    """The largest comes late, so that every block's exponentials are relative to another number; one row begins with -inf."""
    x = np.linspace(-60, 60, shape[1]) + rng.normal(size=shape)
    x[0, : shape[1] // 2] = -np.inf
    return x


def _low(rng, shape):
    """All that counts lies so far down that e^-x overflows, behind more -inf than a block has."""
    x = rng.normal(size=shape) - 1000
    x[:, : shape[1] - 10] = -np.inf
    return x


CASES = [
    *(_case(name, (3, 2060), 1, "_low", _low, grad=False, dtypes=("float32", "float64")) for name in OPS),
    *(_case(name, (3, 6001), 1, "_rising", _rising, grad=False, dtypes=("float32", "float64")) for name in OPS),
    *(_case(name, *how) for name in OPS for how in SHAPES),
    *(_case(name, SPECIAL.shape, axis, "_special", lambda rng, shape: SPECIAL) for name in OPS for axis in (0, 1)),
    *(_case(name, (5, 33), 1, "_huge", _huge, grad=False) for name in OPS),
    *(_case(name, (3, 9), 1, "_equal", lambda rng, shape: np.full(shape, -2.5)) for name in OPS),
    *(_case(name, (3, 9), 1, f"_{dtype}", lambda rng, shape, dtype=dtype: rng.integers(0, 2, size=shape).astype(dtype),
            grad=False, dtypes=("float32",), result="float32")
      for name in OPS for dtype in ("int64", "int32", "uint8", "bool")),
]  # fmt: skip
