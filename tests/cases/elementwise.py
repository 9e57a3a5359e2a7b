"""Functions of one element: values over all floats, vector tails, special values, and the dtypes that they take."""

import numpy as np

import smelt
from tests.cases import FLOATING, TAILS, Case, exact, relative, ulp, ulps
from tests.reference import elementwise as reference

# exp flushes results below the smallest normal float32 to 0; what is built on it loses as much.
FLUSHED = 2.0**-126


def normal(rng, shape):
    return rng.normal(size=shape) * 3


def positive(rng, shape):
    return rng.uniform(0.3, 30, size=shape)


def within(low, high):
    """Where the slope, computed from a rounded result (1 - y^2, y + 1), loses at most a few units to cancellation."""
    return lambda rng, shape: rng.uniform(low, high, size=shape)


def away(*points):
    """Normal numbers at a distance of at least 0.01 from points where a slope jumps or has a pole."""

    def draw(rng, shape):
        x = normal(rng, shape)
        for p in points:
            x = np.where(np.abs(x - p) < 0.01, p + 0.03, x)
        return x

    return draw


def _gelu(given, y, u):
    # The tail of the normal distribution is at most 1/2: 1 unit of 1 from its logarithm's polynomial and the rounding of that
    # logarithm, 1/2 from the exponential, in float64 1 from erf; the rounding of the result is in ulp(y). Of 1 + tanh: 2, 2.7
    # and 1, half of that times x.
    return 3 * u * np.abs(given[0]) + ulp(y, u) + FLUSHED * (u > 2.0**-53)


def _silu(given, y, u):
    # sigmoid's bound times x; where e^-x overflows the sigmoid is below 2^-127 and is 0.
    return 4 * ulp(y, u) * (1 if u > 2.0**-53 else 2) + np.abs(given[0]) * 2.0**-127 * (u > 2.0**-53)


# Op, definition, inputs, and the bound. The counts are the stated bounds in units in the last place of math.inl.h, each
# below the 4 that are documented; the largest errors found over all binades are 0.98 for exp, 3.38 expm1, 0.79 log,
# 1.44 log1p, 1.29 tanh, 2.56 erf, 2.19 sigmoid, 1.93 softplus, 0.56 sin and cos, 1.48 rsqrt. Roots and quotients of
# IEEE 754 are rounded once, half a unit in the last place.
UNARY = {
    "neg": (lambda x: -x, np.negative, normal, exact),
    "abs": (smelt.abs, np.abs, away(0), exact),
    "square": (smelt.square, np.square, normal, ulps(0.5)),
    "sqrt": (smelt.sqrt, np.sqrt, positive, ulps(0.5)),
    "rsqrt": (smelt.rsqrt, lambda x: 1 / np.sqrt(x), positive, ulps(2)),
    "reciprocal": (smelt.reciprocal, lambda x: 1 / x, positive, ulps(0.5)),
    "exp": (smelt.exp, np.exp, within(-4, 4), ulps(1, FLUSHED)),
    "expm1": (smelt.expm1, np.expm1, within(-1, 4), ulps(4)),
    "log": (smelt.log, np.log, positive, ulps(1)),
    "log1p": (smelt.log1p, np.log1p, positive, ulps(2)),
    "sin": (smelt.sin, np.sin, normal, ulps(1)),
    "cos": (smelt.cos, np.cos, normal, ulps(1)),
    "tanh": (smelt.tanh, np.tanh, within(-1.2, 1.2), ulps(2)),
    "sigmoid": (smelt.sigmoid, reference.sigmoid, normal, ulps(3, FLUSHED)),
    "erf": (smelt.erf, reference.erf, normal, ulps(3)),
    "softplus": (smelt.softplus, reference.softplus, normal, ulps(3, FLUSHED)),
    "silu": (smelt.silu, reference.silu, normal, _silu),
    "gelu": (smelt.gelu, reference.gelu, normal, _gelu),
    "gelu_tanh": (lambda x: smelt.gelu(x, "tanh"), reference.gelu_tanh, normal, _gelu),
    "relu": (smelt.relu, lambda x: np.maximum(x, 0), away(0), exact),
    # The slope is rounded to the computing dtype, then the product.
    "leaky_relu": (lambda x: smelt.leaky_relu(x, 0.1), lambda x: reference.leaky_relu(x, 0.1), away(0), relative(2)),
    "elu": (lambda x: smelt.elu(x, 1.5), lambda x: reference.elu(x, 1.5), away(0), ulps(5)),
    "clip": (lambda x: smelt.clip(x, -1.5, 2), lambda x: reference.clip(x, -1.5, 2), away(-1.5, 2), exact),
    "clip_low": (lambda x: smelt.clip(x, low=0.5), lambda x: reference.clip(x, low=0.5), away(0.5), exact),
    "clip_high": (lambda x: smelt.clip(x, high=-1), lambda x: reference.clip(x, high=-1), away(-1), exact),
    "sign": (smelt.sign, np.sign, normal, exact),
    "floor": (smelt.floor, np.floor, normal, exact),
    "ceil": (smelt.ceil, np.ceil, normal, exact),
    "round": (smelt.round, np.rint, normal, exact),
    "trunc": (smelt.trunc, np.trunc, normal, exact),
    "isnan": (smelt.isnan, np.isnan, normal, exact),
    "isinf": (smelt.isinf, np.isinf, normal, exact),
}
FLAT = ("sign", "floor", "ceil", "round", "trunc", "isnan", "isinf")  # the gradient is not recorded
# High rank, no element, no axis, and more than one piece of work for the threads.
SHAPES = [(), (2, 1, 3, 1, 2, 2, 1, 3), (3, 0, 2), (5, 7), (40001,)]
# Zeros of both signs, subnormals and the limits of every dtype, ties of rounding, and the ends of exp.
SPECIAL = [
    0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-40, -1e-40, 2.0**-126, -(2.0**-126), 6e-8, -6e-8, 6.1e-5,
    3.4028234e38, -3.4028234e38, 1e30, 65504.0, -65504.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 1.0, -1.0, 0.625, -0.3466,
    88.5, 89.0, -87.25, -87.5, -89.0, -104.0, 1e-8, -1e-8, 3e-4, -0.99999994, 8388609.0, 16777216.0, 4.0, 1e6,
]  # fmt: skip


def _quiet(f):
    def run(*args):
        with np.errstate(all="ignore"):
            return f(*args)

    return run


def _unary(name, what, inputs, grad=(), op=None, definition=None, bound=None, dtypes=FLOATING):
    own, formula, _, own_bound = UNARY[name]
    return Case(
        name=f"{name}[{what}]",
        op=op or own,
        reference=_quiet(definition or formula),
        inputs=inputs,
        bound=_quiet(bound or own_bound),
        grad=() if name in FLAT else grad,
        dtypes=dtypes,
    )


def _of_shape(name, shape):
    draw = UNARY[name][2]
    return _unary(name, "x".join(map(str, shape)) or "scalar", lambda rng: [draw(rng, shape)], grad=(0,))


def _twice(name):
    """The second gradient is added to the first by the kernel."""
    op, formula, draw, bound = UNARY[name]
    return _unary(
        name,
        "twice",
        lambda rng: [draw(rng, 19)],
        grad=(0,),
        op=lambda x: op(x) + op(x),
        definition=lambda x: 2 * formula(x),
        bound=lambda given, y, u: 2 * bound(given, y / 2, u),
        dtypes=("float32", "float64"),  # of the halves the sum would be rounded a second time
    )


def _sweep(rng):
    """Floats over all binades and signs, evenly by their bits, and densely where the functions are curved."""
    bits = np.arange(0, 2**32, 65537, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return [
        np.concatenate(
            [bits[np.isfinite(bits)].astype(np.float64), rng.uniform(-4, 4, 20000), rng.uniform(-110, 90, 10000)]
        )
    ]


INTEGERS = {
    "int64": [0, 1, -1, 2, -7, 100, 2**40, -(2**40), 3037000500, 2**63 - 1, -(2**63)],
    "int32": [0, 1, -1, 2, -7, 100, 46341, -46341, 2**31 - 1, -(2**31)],
    "uint8": [0, 1, 2, 7, 15, 16, 100, 127, 128, 254, 255],
}
KEEP_INTEGERS = {
    "neg": (lambda x: -x, "neg"),
    "abs": (smelt.abs, "abs"),
    "sign": (smelt.sign, "sign"),
    "square": (smelt.square, "square"),
    "relu": (smelt.relu, "relu"),
    "floor": (smelt.floor, "same"),
    "ceil": (smelt.ceil, "same"),
    "round": (smelt.round, "same"),
    "trunc": (smelt.trunc, "same"),
}


def _integer(name, dtype):
    op, formula = KEEP_INTEGERS[name]
    return Case(
        name=f"{name}[{dtype}]",
        op=op,
        reference=reference.integer(formula, dtype),
        inputs=lambda rng: [np.array(INTEGERS[dtype], dtype)],
        bound=exact,
        dtypes=("float32",),
    )


def _clip_integer(dtype, low, high):
    def definition(x):
        values = [min(max(v, -(2**63) if low is None else low), 2**63 if high is None else high) for v in x.tolist()]
        return np.array(values, dtype)

    return Case(
        name=f"clip[{dtype}_{low}_{high}]",
        op=lambda x: smelt.clip(x, low, high),
        reference=definition,
        inputs=lambda rng: [np.array(INTEGERS[dtype], dtype)],
        bound=exact,
        dtypes=("float32",),
    )


def _to_float(name, dtype):
    """Integers and bool are computed in float32."""
    values = [True, False, True] if dtype == "bool" else [0, 1, 2, 3, 9, 50]
    return Case(
        name=f"{name}[of_{dtype}]",
        op=UNARY[name][0],
        reference=_quiet(lambda x: UNARY[name][1](x.astype(np.float64))),
        inputs=lambda rng: [np.array(values, dtype)],
        bound=lambda given, y, u: UNARY[name][3]([given[0].astype(np.float64)], y, u),
        dtypes=("float32",),
        result="float32",
    )


CASES = [
    *(_of_shape(name, (n,)) for name in UNARY for n in TAILS),
    *(_of_shape(name, shape) for name in UNARY for shape in SHAPES),
    *(_unary(name, "sweep", _sweep) for name in UNARY),
    *(_unary(name, "special", lambda rng: [np.array(SPECIAL)]) for name in UNARY),
    *(_twice(name) for name in UNARY if name not in FLAT),
    *(_integer(name, dtype) for name in KEEP_INTEGERS for dtype in INTEGERS),
    *(_clip_integer(dtype, 1, 90) for dtype in INTEGERS),
    *(_clip_integer(dtype, low, high) for dtype in INTEGERS for low, high in [(2, None), (None, 2)]),
    _clip_integer("int32", -(2**31), 2**31 - 1),
    *(
        _to_float(name, dtype)
        for name in ("sqrt", "rsqrt", "reciprocal", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid",
                     "erf", "silu", "softplus", "gelu", "elu", "leaky_relu")
        for dtype in ("int64", "int32", "uint8", "bool")
    ),
]  # fmt: skip
