"""Functions of two and three elements: broadcasting, promotion, numbers, integers, bool, comparisons, where."""

import operator

import numpy as np

import smelt
from tests.cases import FLOATING, TAILS, Case, exact, relative, ulp, ulps
from tests.reference import elementwise as reference
from tests.reference.elementwise import INTEGER

PAIRS = [
    *(((n,), (n,)) for n in TAILS),
    *(((n,), ()) for n in (1, 8, 17)),
    ((), ()), ((), (9,)), ((1,), (7,)), ((3, 1), (1, 4)), ((2, 3, 4), (4,)), ((4,), (2, 3, 4)), ((2, 1, 17), (3, 1)),
    ((17, 1), (1, 33)), ((2, 3, 1, 5), (3, 4, 1)), ((2, 1, 3, 1, 2, 1, 2, 2), (1, 2, 1, 3, 2, 2, 1, 2)),
    ((0, 3), (1, 3)), ((3, 1), (3, 0)), ((1,), (0,)), ((2, 0, 1), (0, 5)),
]  # fmt: skip
LARGE = [((40001,), (40001,)), ((257, 129), (129,)), ((257, 1), (257, 129))]


def normal(rng, a, b):
    return [rng.normal(size=a), rng.normal(size=b)]


def divisible(rng, a, b):
    """Quotients whose distance from whole numbers is at least 0.3: floor has no step there."""
    return [0.75 * (rng.integers(-8, 8, size=a) + rng.uniform(0.3, 0.7, size=a)), rng.choice([-0.75, 0.75], size=b)]


def bases(rng, a, b):
    return [rng.uniform(0.3, 3, size=a), rng.uniform(-3, 3, size=b)]


def quotients(rng, a, b):
    return [rng.normal(size=a), rng.uniform(0.5, 3, size=b) * rng.choice([-1, 1], size=b)]


def apart(rng, a, b):
    """Whole numbers on the left, none on the right: never equal, and never near."""
    return [np.rint(rng.normal(size=a) * 2), np.rint(rng.normal(size=b) * 2) + rng.choice([-0.3, 0.3], size=b)]


def _remainder_bound(given, y, u):
    return u * np.abs(given[1]) + ulp(y, u)  # fmod is exact; the divisor is added with one rounding


def _quiet(f):
    def run(*args):
        with np.errstate(all="ignore"):
            return f(*args)

    return run


# Op, definition, inputs, bound, whether there is a gradient.
BINARY = {
    "add": (operator.add, np.add, normal, ulps(0.5), True),
    "sub": (operator.sub, np.subtract, normal, ulps(0.5), True),
    "mul": (operator.mul, np.multiply, normal, ulps(0.5), True),
    "div": (operator.truediv, np.divide, quotients, ulps(0.5), True),
    "pow": (operator.pow, np.power, bases, ulps(1), True),  # the C library's, within 1 unit in the last place
    "maximum": (smelt.maximum, np.maximum, apart, exact, True),
    "minimum": (smelt.minimum, np.minimum, apart, exact, True),
    "floor_div": (operator.floordiv, reference.floor_divide, divisible, exact, False),
    "remainder": (operator.mod, reference.remainder, divisible, _remainder_bound, True),
}
COMPARISONS = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 2.0**-126, 3.4028234e38, -3.4028234e38, 1.0, -1.0, 2.0,
           -3.0, 0.5, -2.5, 65504.0, 6e-8]  # fmt: skip


def _name(shape):
    return "x".join(map(str, shape)) or "scalar"


def _pair(name, a, b):
    op, formula, draw, bound, slope = BINARY[name]
    return Case(
        name=f"{name}[{_name(a)}_{_name(b)}]",
        op=op,
        reference=formula,
        inputs=lambda rng: draw(rng, a, b),
        bound=bound,
        grad=(0, 1) if slope else (),
        dtypes=FLOATING,
    )


def _special(name):
    """All pairs of zeros, infinities, NaN, subnormals and limits."""
    op, formula, _, bound, _ = BINARY[name]
    return Case(
        name=f"{name}[special]",
        op=op,
        reference=_quiet(formula),
        inputs=lambda rng: [np.array(SPECIAL)[:, None], np.array(SPECIAL)],
        bound=_quiet(bound),
        dtypes=FLOATING,
    )


def _self(name, op, formula):
    """One tensor on both sides, and a result used twice: gradients are added by the kernels."""
    return Case(
        name=f"{name}[self]",
        op=op,
        reference=formula,
        inputs=lambda rng: [rng.uniform(0.5, 2, size=19)],
        bound=relative(16),  # at most six operations and a power, nothing cancels
        grad=(0,),
    )


def _number(name, what, op, formula, inputs=None, bound=None, slope=True):
    return Case(
        name=f"{name}[{what}]",
        op=op,
        reference=formula,
        inputs=lambda rng: [inputs(rng) if inputs else rng.uniform(0.5, 3, size=19)],
        bound=bound or BINARY[name][3],
        grad=(0,) if slope else (),
        dtypes=FLOATING,
    )


def _whole_quotients(rng):
    """Dividends next to whole multiples of the divisor, where a rounded quotient reaches the next whole number."""
    divisor = rng.uniform(0.01, 3, size=400) * rng.choice([-1, 1], size=400)
    divisor = divisor.astype(np.float32).astype(np.float64)
    dividend = (rng.integers(-2000, 2000, size=400) * divisor).astype(np.float32).astype(np.float64)
    return [np.append(dividend, [1.0, 6.0, -1.0]), np.append(divisor, [0.1, 0.1, 0.1])]


NUMBERS = [
    _number("add", "number", lambda x: x + 2.5, lambda x: x + 2.5),
    _number("add", "number_first", lambda x: 2.5 + x, lambda x: 2.5 + x),
    _number("sub", "number", lambda x: x - 0.75, lambda x: x - 0.75),
    _number("sub", "number_first", lambda x: 0.75 - x, lambda x: 0.75 - x),
    _number("mul", "number", lambda x: x * -1.5, lambda x: x * -1.5),
    _number("mul", "number_first", lambda x: 3 * x, lambda x: 3 * x),
    _number("div", "number", lambda x: x / 3, lambda x: x / 3),
    _number("div", "number_first", lambda x: 1.5 / x, lambda x: 1.5 / x),
    *(_number("pow", f"to_{p}", lambda x, p=p: x**p, lambda x, p=p: x**p) for p in (0, 1, 2, 3, 0.5, -1, -1.5)),
    _number("pow", "negative_base", lambda x: x**3, lambda x: x**3, lambda rng: rng.uniform(-3, -0.5, size=9)),
    _number("pow", "number_first", lambda x: 2.5**x, lambda x: 2.5**x),
    _number("maximum", "number", lambda x: smelt.maximum(x, 1.25), lambda x: np.maximum(x, 1.25)),
    _number("minimum", "number", lambda x: smelt.minimum(1.25, x), lambda x: np.minimum(x, 1.25)),
    _number("floor_div", "number", lambda x: x // 0.75, lambda x: reference.floor_divide(x, 0.75), slope=False),
    _number("floor_div", "number_first", lambda x: 7 // x, lambda x: reference.floor_divide(7, x), slope=False),
    _number("remainder", "number", lambda x: x % -0.75, lambda x: reference.remainder(x, -0.75),
            lambda rng: rng.integers(-8, 8, size=19) * 0.75 + 0.25, lambda given, y, u: u),
    _number("remainder", "number_first", lambda x: 2.5 % x, lambda x: reference.remainder(2.5, x),
            lambda rng: rng.uniform(1.3, 2.4, size=19), lambda given, y, u: 3 * u),
]  # fmt: skip


# ------------------------------------------------------------------------------------------------ integers and bool

VALUES = {
    "int64": [0, 1, -1, 2, -2, 3, -7, 63, 2**40, 3037000500, 2**63 - 1, -(2**63)],
    "int32": [0, 1, -1, 2, -2, 3, -7, 31, 46341, 2**31 - 1, -(2**31)],
    "uint8": [0, 1, 2, 3, 7, 16, 127, 128, 254, 255],
}
OPERATORS = {name: BINARY[name][0] for name in INTEGER if name in BINARY}


def _grid(values, dtype):
    return [np.array(values, dtype)[:, None], np.array(values, dtype)]


def _integer_case(name, what, op, formula, inputs):
    return Case(name=f"{name}[{what}]", op=op, reference=formula, inputs=inputs, bound=exact, dtypes=("float32",))


def _integer_grid(name, dtype):
    values = VALUES[dtype]
    if name == "pow":  # small exponents; negative ones round towards 0
        values = [v for v in values if abs(v) < 70]
    if name == "pow" and dtype != "uint8":
        # 0 to a negative power is not defined.
        draw = [np.array([v for v in values if v], dtype)[:, None], np.array(values, dtype)]
    else:
        draw = _grid(values, dtype)
    return _integer_case(name, dtype, OPERATORS[name], reference.integer(name, dtype), lambda rng: draw)


def _integer_number(name, dtype, number):
    op, formula = OPERATORS[name], reference.integer(name, dtype)

    def both(x):
        return op(x, number), op(number, x)

    def definition(x):
        n = np.array(number, dtype)
        return formula(x, n), formula(n, x)

    return _integer_case(
        name, f"{dtype}_number_{number}", both, definition, lambda rng: [np.array(VALUES[dtype], dtype)]
    )


def _divided(dtype):
    """True division of integers is of float32 numbers, and gives float32."""
    values = [0, 1, 2, 3, 7, 100, 255]
    return Case(
        name=f"div[{dtype}]",
        op=operator.truediv,
        reference=_quiet(lambda a, b: a.astype(np.float64) / b.astype(np.float64)),
        inputs=lambda rng: _grid(values, dtype),
        bound=ulps(0.5),
        dtypes=("float32",),
        result="float32",
    )


def _comparison(name, dtype):
    op = COMPARISONS[name]
    values = VALUES.get(dtype, [False, True])
    return _integer_case(name, dtype, op, op, lambda rng: _grid(values, dtype))


def _float_comparison(name, shape_a, shape_b):
    op = COMPARISONS[name]

    def inputs(rng):  # whole numbers: often equal
        return [np.rint(rng.normal(size=shape_a)), np.rint(rng.normal(size=shape_b))]

    return Case(f"{name}[{_name(shape_a)}_{_name(shape_b)}]", op, op, inputs, exact, dtypes=FLOATING)


def _compared_to_numbers(name):
    """Numbers on both sides, also some that do not fit the dtype."""
    op = COMPARISONS[name]
    numbers = [1, 255, 256, -1, 2**40]
    return _integer_case(
        name, "numbers", lambda x: tuple(op(x, n) for n in numbers) + tuple(op(n, x) for n in numbers),
        lambda x: tuple(op(x.astype(np.int64), n) for n in numbers) + tuple(op(n, x.astype(np.int64)) for n in numbers),
        lambda rng: [np.array(VALUES["uint8"], np.uint8)],
    )  # fmt: skip


TRUTH = [np.array([False, False, True, True]), np.array([False, True, False, True])]
BOOL = [
    _integer_case(name, "bool", op, formula, lambda rng: TRUTH)
    for name, op, formula in [
        ("and", operator.and_, np.logical_and),
        ("or", operator.or_, np.logical_or),
        ("xor", operator.xor, np.logical_xor),
        ("add", operator.add, np.logical_or),
        ("mul", operator.mul, np.logical_and),
        ("maximum", smelt.maximum, np.logical_or),
        ("minimum", smelt.minimum, np.logical_and),
        ("not", lambda a, b: (~a, ~b), lambda a, b: (~a, ~b)),
        ("and", lambda a, b: (a & True, False | b, a ^ True), lambda a, b: (a, b, ~a)),
    ]
]
BOOL[-1] = _integer_case("and", "bool_number", BOOL[-1].op, BOOL[-1].reference, lambda rng: TRUTH)

# -------------------------------------------------------------------------------------------------------- promotion

ORDER = ["bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


def promoted(a, b):
    """The wider of two dtypes; the two halves meet in float32."""
    if {a, b} == {"float16", "bfloat16"}:
        return "float32"
    return max(a, b, key=ORDER.index)


def _promotion(a, b):
    """Of all operators that keep the promoted dtype, on numbers that every dtype has."""
    to = promoted(a, b)

    def op(x, y):
        x, y = x.to(a), y.to(b)
        return x + y, x * y, smelt.maximum(x, y), smelt.where(x == y, x, y), x == y

    def definition(x, y):
        x, y = (v != 0 if d == "bool" else v for v, d in ((x, a), (y, b)))
        kind = "float64" if to.startswith(("float", "bfloat")) else to
        results = (np.logical_or(x, y) if to == "bool" else x + 1 * y, x * y, np.maximum(x, y), np.where(x == y, x, y))
        return *(r.astype(kind) for r in results), x == y

    return Case(
        name=f"promotion[{a}_{b}]",
        op=op,
        reference=definition,
        inputs=lambda rng: [np.array([0, 1, 3, 5]), np.array([0, 3, 3, 2])],
        bound=exact,
        dtypes=("float32",),
        result=to if "float" in to else "",
    )


def _number_promotion(dtype, number, to):
    """A number changes the dtype only to one of a higher kind."""
    return Case(
        name=f"promotion[{dtype}_number_{type(number).__name__}]",
        op=lambda x: (x.to(dtype) + number, number * x.to(dtype)),
        reference=lambda x: tuple(
            v if "float" in to else v.astype(to) for v in ((x != 0 if dtype == "bool" else x) + number * 1.0,
                                                           (x != 0 if dtype == "bool" else x) * (number * 1.0))
        ),
        inputs=lambda rng: [np.array([0, 1, 3, 5])],
        bound=exact,
        dtypes=("float32",),
        result=to if "float" in to else "",
    )  # fmt: skip


NUMBER_PROMOTION = [
    *(_number_promotion(d, n, d) for d in ORDER[1:] for n in (2, np.int64(2))),
    *(_number_promotion(d, n, d) for d in ORDER[4:] for n in (0.5, np.float64(0.5), np.float32(0.5))),
    *(_number_promotion(d, n, "float32") for d in ORDER[:4] for n in (0.5, np.float64(0.5))),
    _number_promotion("bool", 2, "int64"),
]


# ------------------------------------------------------------------------------------------------------------ where


def _where(condition, a, b):
    return Case(
        name=f"where[{_name(condition)}_{_name(a)}_{_name(b)}]",
        op=smelt.where,
        reference=np.where,
        inputs=lambda rng: [rng.integers(0, 2, size=condition).astype(bool), rng.normal(size=a), rng.normal(size=b)],
        bound=exact,
        grad=(1, 2),
        dtypes=FLOATING,
    )


WHERE = [
    *(_where((n,), (n,), (n,)) for n in TAILS),
    *(_where(*shapes) for shapes in [
        ((), (), ()), ((5,), (), ()), ((), (5,), (1,)), ((4, 1), (3,), (2, 1, 1)), ((2, 1, 3), (4, 1), ()),
        ((1, 2, 1, 3, 2, 2, 1, 2), (2, 1, 3, 1, 2, 1, 2, 2), (2,)), ((0,), (1,), ()), ((3, 1), (1, 0), (3, 0)),
        ((40001,), (40001,), (1,)),
    ]),
    Case("where[numbers]", lambda c, x: (smelt.where(c, x, 0), smelt.where(c, -1.5, x)),
         lambda c, x: (np.where(c, x, 0), np.where(c, -1.5, x)),
         lambda rng: [rng.normal(size=19) > 0, rng.normal(size=19)], exact, (1,), FLOATING),
    # The side that is not taken gives nothing, whatever it holds.
    Case("where[special]", smelt.where, np.where,
         lambda rng: [np.arange(18) % 3 > 0, np.array(SPECIAL), np.array(SPECIAL[::-1])], exact, (), FLOATING),
    *(Case(f"where[{dtype}]", smelt.where, np.where,
           lambda rng, dtype=dtype: [np.array([True, False])[:, None, None], *_grid(VALUES.get(dtype, [False, True]), dtype)],
           exact, dtypes=("float32",)) for dtype in ("int64", "int32", "uint8", "bool")),
]  # fmt: skip

CASES = [
    *(_pair(name, *shapes) for name in BINARY for shapes in PAIRS),
    *(_pair(name, *shapes) for name in ("add", "sub", "mul", "div", "pow", "maximum") for shapes in LARGE),
    *(_special(name) for name in ("add", "sub", "mul", "div", "pow", "maximum", "minimum")),
    Case("floor_div[whole]", operator.floordiv, reference.floor_divide, _whole_quotients, ulps(1), dtypes=FLOATING),
    Case("remainder[whole]", operator.mod, reference.remainder, _whole_quotients, _remainder_bound, dtypes=FLOATING),
    Case("floor_div[infinite]", lambda a, b: (a // b, a % b),
         lambda a, b: (np.array([0.0, -1.0, -1.0, 0.0]), np.array([5.0, np.inf, -np.inf, -5.0])),
         lambda rng: [np.array([5.0, -5.0, 5.0, -5.0]), np.array([np.inf, np.inf, -np.inf, -np.inf])], exact,
         dtypes=FLOATING),
    _self("add", lambda x: x + x, lambda x: 2 * x),
    _self("mul", lambda x: x * x + x, lambda x: x * x + x),
    _self("div", lambda x: (2 / x) / (x / (x + 1)), lambda x: (2 / x) / (x / (x + 1))),
    _self("pow", lambda x: x**x * 1.5, lambda x: x**x * 1.5),
    _self("maximum", lambda x: smelt.maximum(x * 2, x) + x, lambda x: np.maximum(x * 2, x) + x),
    *NUMBERS,
    *(_integer_grid(name, dtype) for name in OPERATORS for dtype in VALUES),
    *(_integer_number(name, dtype, n) for name in OPERATORS if name != "pow" for dtype in VALUES for n in (0, 1, 7)),
    *(_integer_number(name, dtype, -3) for name in OPERATORS if name != "pow" for dtype in ("int64", "int32")),
    *(_divided(dtype) for dtype in VALUES),
    *(_comparison(name, dtype) for name in COMPARISONS for dtype in (*VALUES, "bool")),
    *(_float_comparison(name, (n,), (n,)) for name in COMPARISONS for n in (0, 1, 7, 17)),
    *(_float_comparison(name, *shapes) for name in COMPARISONS for shapes in (((3, 1), (1, 5)), ((2, 3, 4), ()))),
    *(Case(f"{name}[special]", op, op, lambda rng: [np.array(SPECIAL)[:, None], np.array(SPECIAL)], exact,
           dtypes=FLOATING) for name, op in COMPARISONS.items()),
    *(_compared_to_numbers(name) for name in COMPARISONS),
    *BOOL,
    *(_promotion(a, b) for a in ORDER for b in ORDER),
    *NUMBER_PROMOTION,
    *WHERE,
]  # fmt: skip
