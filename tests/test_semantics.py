"""The statements of docs/semantics.md, one by one: dtypes, promotion, division, NaN, ties, empty tensors, randomness."""

import ctypes
import ctypes.util
import itertools
import math
import operator
import platform

import numpy as np
import pytest

import smelt
from smelt import _core, losses, nn

ORDER = ["bool", "uint8", "int32", "int64", "bfloat16", "float16", "float32", "float64"]
FLOATS = ORDER[4:]
INTEGERS = ORDER[1:4]
NAN, INF = float("nan"), float("inf")


def equal(x, expected, dtype=None):
    """Equal as lists, NaN included."""
    np.testing.assert_array_equal(np.asarray(x.tolist()), np.asarray(expected))
    assert dtype is None or x.dtype == dtype


# ------------------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize(
    "dtype, names",
    [
        ("float32", ["fp32", "float", float, np.float32, np.dtype("float32")]),
        ("float64", ["fp64", "double", np.float64]),
        ("bfloat16", ["bf16"]),
        ("float16", ["fp16", "half", np.float16]),
        ("int64", ["int", int, np.int64]),
        ("int32", [np.int32]),
        ("uint8", [np.uint8]),
        ("bool", [bool, np.bool_]),
    ],
)
def test_names_of_dtypes(dtype, names):
    own = getattr(smelt, "bool_" if dtype == "bool" else dtype)
    assert str(own) == own.name == dtype and repr(own) == f"smelt.{dtype}"
    for name in [dtype, own, *names]:
        assert smelt.zeros(1, dtype=name).dtype is own or smelt.zeros(1, dtype=name).dtype == own
        assert own == name and hash(own) == hash(smelt.zeros(1, dtype=name).dtype)
    assert own != "nonsense" and own != None and own.is_floating == (dtype in FLOATS)  # noqa: E711
    assert sum(own == other for other in ORDER) == 1


@pytest.mark.parametrize("a, b", list(itertools.product(ORDER, ORDER)))
def test_promotion_of_two_tensors(a, b):
    expected = "float32" if {a, b} == {"bfloat16", "float16"} else max(a, b, key=ORDER.index)
    x, y = smelt.ones(2, dtype=a), smelt.ones(2, dtype=b)
    for op in (operator.mul, operator.add, smelt.maximum):
        assert op(x, y).dtype == expected
    assert smelt.where(x.bool(), x, y).dtype == expected
    assert smelt.concat([x, y]).dtype == expected
    assert (x / y).dtype == (expected if expected in FLOATS else "float32")
    assert (x < y).dtype == "bool"


NUMBERS = [(True, 0), (np.True_, 0), (2, 1), (np.int8(2), 1), (np.uint64(2), 1), (0.5, 2), (np.float64(0.5), 2)]


@pytest.mark.parametrize("dtype", ORDER)
@pytest.mark.parametrize("number, kind", NUMBERS, ids=repr)
def test_numbers_give_way(dtype, number, kind):
    """A number changes the dtype only to one of a higher kind: bool < integer < float."""
    own = 0 if dtype == "bool" else 1 if dtype in INTEGERS else 2
    expected = dtype if kind <= own else ["bool", "int64", "float32"][kind]
    x = smelt.ones(2, dtype=dtype)
    for y in (x * number, number * x, x + number, smelt.maximum(x, number), smelt.where(x.bool(), number, x)):
        assert y.dtype == expected
    assert (x / number).dtype == (expected if own == 2 else "float32")
    assert (x * number).tolist() == [float(number)] * 2


@pytest.mark.parametrize("dtype, low, high", [("uint8", 0, 255), ("int32", -(2**31), 2**31 - 1)])
def test_an_integer_that_does_not_fit(dtype, low, high):
    x = smelt.tensor([1], dtype=dtype)
    for bad in (low - 1, high + 1, 2**62):
        for op in (operator.add, operator.mul, operator.floordiv, operator.mod):
            with pytest.raises(ValueError, match=f"{bad}.* {dtype}"):
                op(x, bad)
        assert (x == bad).tolist() == [False] and (x != bad).tolist() == [True]
        assert (x < bad).tolist() == [bad > 1] and (x >= bad).tolist() == [bad < 1] and (bad > x).tolist() == [bad > 1]
    assert (x * high).tolist() == [high] and (x * low).tolist() == [low]


@pytest.mark.parametrize("bad", [2**63, -(2**63) - 1, 10**30])
def test_an_integer_beyond_every_dtype(bad):
    x = smelt.tensor([1])
    with pytest.raises(ValueError, match=str(bad)):
        x + bad
    assert (x == bad).tolist() == [False] and (x < bad).tolist() == [bad > 0] and (x > bad).tolist() == [bad < 0]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_wrap(dtype):
    info = np.iinfo(dtype)
    x = smelt.tensor(np.array([info.max, info.min, 7], dtype))
    with np.errstate(over="ignore"):
        for y, expected in [(x + x, x.numpy() + x.numpy()), (x * x, x.numpy() * x.numpy()), (x - 1 - x - x, None)]:
            expected = x.numpy() - np.array(1, dtype) - x.numpy() - x.numpy() if expected is None else expected
            equal(y, expected, dtype)
        equal(-x, -x.numpy(), dtype)
    if dtype != "uint8":
        equal(smelt.tensor(np.array([info.min], dtype)) // -1, [info.min], dtype)
        equal(smelt.tensor(np.array([info.min], dtype)) % -1, [0], dtype)


@pytest.mark.parametrize("op", [operator.add, operator.mul, operator.truediv, operator.sub], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_compute_in_float32_and_round_once(op, dtype, rng):
    a, b = rng.normal(size=(2, 500)).astype(np.float32)
    x, y = smelt.tensor(a).to(dtype), smelt.tensor(b).to(dtype)
    wide = op(x.float().numpy(), y.float().numpy())
    if dtype == "float16":
        expected = wide.astype(np.float16).astype(np.float32)
    else:  # to nearest, ties to even, on the upper 16 bits
        bits = wide.view(np.uint32)
        expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    np.testing.assert_array_equal(op(x, y).float().numpy(), expected)


def test_bool_arithmetic():
    t, f = smelt.tensor([True, True, False]), smelt.tensor([True, False, False])
    equal(t + f, [True, True, False], "bool")
    equal(t * f, [True, False, False], "bool")
    equal(t / smelt.tensor([True]), [1, 1, 0], "float32")
    with pytest.raises(TypeError, match="sub: bool"):
        t - f
    assert t.sum().dtype == t.prod().dtype == "int64" and t.sum().item() == 2
    for dtype in INTEGERS:
        total = smelt.full((300,), 100, dtype=dtype)
        assert total.sum().dtype == "int64" and total.sum().item() == 30_000  # no wrapping in uint8
        assert smelt.full((3,), 100, dtype=dtype).prod().item() == 1_000_000


VALUES = [
    0.0,
    -0.0,
    0.9,
    -0.9,
    1.5,
    -1.5,
    254.9,
    255.9,
    300.0,
    -300.0,
    2.0**31,
    -(2.0**31),
    2.0**62,
    2.0**63,
    -(2.0**63),
]
VALUES += [1e30, -1e30, INF, -INF, NAN, 1e-40]


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", [*INTEGERS, "bool"])
def test_conversion_from_floats(source, target):
    """Truncated towards 0, saturated, NaN becomes 0; to bool: whether it is not 0."""
    x = smelt.tensor(VALUES, dtype="float64").to(source)
    values = x.tolist()
    if target == "bool":
        expected = [v != 0 for v in values]
    else:
        info = np.iinfo(target)
        whole = [0 if math.isnan(v) else math.copysign(2**70, v) if math.isinf(v) else math.trunc(v) for v in values]
        expected = [int(min(max(v, info.min), info.max)) for v in whole]
    assert x.to(target).tolist() == expected
    assert x.to(target)[0].item() == expected[0]  # alone, without its neighbours in a vector


@pytest.mark.parametrize("target", ["float32", "float16", "bfloat16"])
def test_conversion_between_floats_rounds_once(target, rng):
    """To nearest, ties to even, from float64 directly: a stop at float32 would round twice."""
    bits = {"float32": 23, "float16": 10, "bfloat16": 7}[target]
    unit = 2.0**-bits
    a = np.array([1, 1 + unit / 2, 1 + 3 * unit / 2, 1 + unit / 2 + 2.0**-40, 1 + 3 * unit / 2 - 2.0**-40])
    expected = [1, 1, 1 + 2 * unit, 1 + unit, 1 + unit]
    for sign in (1, -1):
        assert smelt.from_numpy(sign * a).to(target).double().tolist() == [sign * v for v in expected]
    special = smelt.tensor([INF, -INF, NAN, 0.0, 1e300], dtype="float64").to(target).double()
    equal(special, [INF, -INF, NAN, 0, INF])
    if target == "float16":
        b = rng.normal(size=1000) * 10.0 ** rng.integers(-9, 6, 1000)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(smelt.from_numpy(b).half().numpy(), b.astype(np.float16))


# ----------------------------------------------------------------------------------------------------------- division


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_floor_division_and_remainder_belong_together(dtype, rng):
    a, b = rng.integers(0, 50, (2, 400)) if dtype == "uint8" else rng.integers(-50, 50, (2, 400))
    b[b == 0] = 3
    x, y = smelt.tensor(a).to(dtype), smelt.tensor(b).to(dtype)
    q, r = x // y, x % y
    assert q.dtype == r.dtype == dtype
    equal(q, a // b)
    equal(r, a % b)
    equal(q * y + r, a)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floor_division_of_floats_is_pythons(dtype, rng):
    """The floor of the exact quotient, even where the rounded quotient is the next integer."""
    a = np.round(rng.normal(size=2000) * 30, 1).astype(dtype)
    b = np.round(rng.normal(size=2000), 1).astype(dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal((smelt.tensor(a) // smelt.tensor(b)).numpy(), a // b)
        np.testing.assert_array_equal((smelt.tensor(a) % smelt.tensor(b)).numpy(), a % b)


def test_division_by_zero():
    for dtype in INTEGERS:
        x = smelt.tensor([1, 0, 5], dtype=dtype)
        equal(x // 0, [0, 0, 0], dtype)
        equal(x % 0, [0, 0, 0], dtype)
        equal(x // smelt.zeros_like(x), [0, 0, 0], dtype)
        equal(x / 0, [INF, NAN, INF], "float32")
    for dtype in FLOATS:
        x = smelt.tensor([1.0, 0.0, -1.0], dtype=dtype)
        equal(x / 0, [INF, NAN, -INF], dtype)
        equal(x // 0, [INF, NAN, -INF], dtype)
        equal(x % 0, [NAN, NAN, NAN], dtype)


def test_powers_of_integers():
    x = smelt.tensor([2, 1, -1, -1, 0, 3])
    with pytest.raises(ValueError, match="exponent -1"):
        x**-1
    equal(x ** smelt.tensor([-1, -5, -1, -2, -1, -2]), [0, 1, -1, 1, 0, 0], "int64")
    equal(x**0, [1] * 6, "int64")
    equal(x**3, [8, 1, -1, -1, 0, 27], "int64")
    equal(x**-1.0, [0.5, 1, -1, -1, INF, np.float32(1) / np.float32(3)], "float32")


# ------------------------------------------------------------------------------------------------- NaN, order and ties


def test_nan_passes_through(isa):
    x = smelt.tensor([1.0, NAN, 3.0] * 7)
    at = smelt.tensor([False, True, False] * 7)
    functions = [
        smelt.exp, smelt.log, smelt.sqrt, smelt.tanh, smelt.sigmoid, smelt.relu, smelt.leaky_relu, smelt.elu, smelt.gelu,
        smelt.silu, smelt.softplus, smelt.abs, smelt.sign, smelt.square, smelt.erf, smelt.sin, smelt.floor, smelt.round,
        smelt.expm1, smelt.log1p, smelt.reciprocal, smelt.rsqrt, lambda x: smelt.gelu(x, approximate="tanh"),
        lambda x: x.clip(0, 2), lambda x: x.clip(low=0), lambda x: smelt.maximum(x, 0), lambda x: smelt.minimum(x, 2),
        lambda x: smelt.maximum(2.0, x), lambda x: smelt.minimum(smelt.ones(21), x), lambda x: -x, lambda x: x**2,
        lambda x: x + 1, lambda x: x % 2, lambda x: x // 2,
    ]  # fmt: skip
    for i, function in enumerate(functions):
        for y in (function(x), function(x.double())):
            assert (y.isnan() == at).all(), f"function {i}"
    for reduce in (smelt.sum, smelt.mean, smelt.max, smelt.min, smelt.prod, smelt.var, smelt.std):
        assert math.isnan(reduce(x).item()) and not math.isnan(reduce(x[~at]).item()), reduce
    assert x.argmax().item() == 1 and x.argmin().item() == 1
    image = x[:16].reshape(1, 4, 4, 1)
    expected = image.isnan().reshape(2, 2, 2, 2).any(axis=(1, 3)).reshape(-1)
    assert (smelt.max_pool2d(image, 2).isnan().reshape(-1) == expected).all()


def test_nan_stays_in_its_row(isa):
    x = smelt.rand(5, 33)
    clean = x.copy()
    x[2, 17] = NAN
    row = smelt.tensor([False, False, True, False, False])
    labels = smelt.tensor([0, 1, 2, 3, 4])
    for f in (
        smelt.softmax,
        smelt.log_softmax,
        lambda x: smelt.layer_norm(x, smelt.ones(33), smelt.zeros(33)),
        smelt.rms_norm,
        lambda x: smelt.group_norm(x, 3),
        lambda x: smelt.add_layer_norm(x, x)[1],
        lambda x: losses.cross_entropy(x, labels, reduction="none").reshape(5, 1),
        lambda x: losses.mse_loss(x, clean, reduction="none").mean(axis=1, keepdims=True),
    ):
        y = f(x)
        assert (y.isnan().any(axis=1) == row).all()
        np.testing.assert_array_equal(y[~row].numpy(), f(clean)[~row].numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "uint8"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sorting_is_stable_with_nan_last(dtype, axis, rng):
    """Few distinct values, so most are ties: equal elements keep their order, ascending and descending."""
    a = rng.integers(0, 5, (7, 40)).astype(dtype)
    if a.dtype.kind == "f":
        a[rng.random(a.shape) < 0.2] = np.nan
        a[rng.random(a.shape) < 0.1] = -np.inf
    x = smelt.tensor(a)
    order = np.argsort(a, axis=axis, kind="stable")  # NumPy, too, puts NaN last
    np.testing.assert_array_equal(x.argsort(axis).numpy(), order)
    np.testing.assert_array_equal(x.sort(axis).numpy(), np.sort(a, axis=axis))
    ranks = np.where(np.isnan(a), 1e9, a.astype(np.float64)) if a.dtype.kind == "f" else a.astype(np.float64)
    falling = np.argsort(-ranks, axis=axis, kind="stable")
    np.testing.assert_array_equal(x.argsort(axis, descending=True).numpy(), falling)
    np.testing.assert_array_equal(x.sort(axis, descending=True).numpy(), np.take_along_axis(a, falling, axis))
    for k in (0, 1, 3, a.shape[axis]):
        for largest, positions in ((True, falling), (False, order)):
            values, index = x.topk(k, axis, largest)
            wanted = np.take(positions, range(k), axis)
            np.testing.assert_array_equal(index.numpy(), wanted)
            np.testing.assert_array_equal(values.numpy(), np.take_along_axis(a, wanted, axis))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8"])
def test_positions_of_extrema_are_the_first(dtype, rng):
    a = rng.integers(0, 4, (9, 50)).astype(dtype)
    x = smelt.tensor(a)
    for axis in (None, 0, 1):
        np.testing.assert_array_equal(x.argmax(axis).numpy(), a.argmax(axis))
        np.testing.assert_array_equal(x.argmin(axis).numpy(), a.argmin(axis))
    assert x.argmax(1, keepdims=True).shape == (9, 1) and x.argmax().dtype == "int64"
    if a.dtype.kind == "f":
        a[:, [30, 40]] = np.nan
        assert smelt.tensor(a).argmax(1).tolist() == smelt.tensor(a).argmin(1).tolist() == [30] * 9


@pytest.mark.parametrize(
    "function, x, expected",
    [
        (lambda x: x.max(), [3, 1, 3, 3], [1 / 3, 0, 1 / 3, 1 / 3]),
        (lambda x: x.min(), [1, 1, 3, 2], [0.5, 0.5, 0, 0]),
        (lambda x: x.reshape(2, 2).max(axis=1).sum(), [1, 1, 2, 3], [0.5, 0.5, 0, 1]),
        (lambda x: smelt.maximum(x, smelt.tensor([1.0, 2.0, 3.0, 4.0])).sum(), [1, 1, 4, 4], [0.5, 0, 1, 0.5]),
        (lambda x: smelt.minimum(x, smelt.tensor([1.0, 2.0, 3.0, 4.0])).sum(), [1, 1, 4, 4], [0.5, 1, 0, 0.5]),
        (lambda x: smelt.maximum(x, 1).sum(), [0, 1, 2, 1], [0, 0.5, 1, 0.5]),
        (lambda x: smelt.maximum(x, x).sum(), [0, 1, 2, 1], [1, 1, 1, 1]),
        (lambda x: x.relu().sum(), [-1, 0, -0.0, 2], [0, 0, 0, 1]),
        (lambda x: x.abs().sum(), [-1, 0, -0.0, 2], [-1, 0, 0, 1]),
        (lambda x: smelt.leaky_relu(x, 0.5).sum(), [-1, 0, -0.0, 2], [0.5, 1, 1, 1]),
        (lambda x: x.clip(-1, 1).sum(), [-1, 1, -2, 2], [1, 1, 0, 0]),
        (lambda x: losses.l1_loss(x, smelt.zeros_like(x), reduction="sum"), [-1, 0, -0.0, 2], [-1, 0, 0, 1]),
        (lambda x: smelt.max_pool2d(x.reshape(1, 2, 2, 1), 2).sum(), [1, 7, 7, 7], [0, 1, 0, 0]),
        (lambda x: smelt.max_pool1d(x.reshape(1, 4, 1), 3, stride=1).sum(), [2, 2, 2, 1], [1, 1, 0, 0]),
        (lambda x: smelt.adaptive_max_pool2d(x.reshape(1, 1, 4, 1), 1).sum(), [5, 5, 5, 5], [1, 0, 0, 0]),
    ],
)
def test_gradients_at_ties_and_kinks(function, x, expected, isa):
    for dtype in ("float32", "float64"):
        leaf = smelt.tensor(x, dtype=dtype, requires_grad=True)
        function(leaf).backward()
        assert leaf.grad.tolist() == [pytest.approx(v, rel=2**-23) for v in expected]


# --------------------------------------------------------------------------------------- subnormals and the environment


def test_exp_flushes_and_all_else_keeps_subnormals(isa):
    tiny = np.float32(1e-42)  # subnormal
    x = smelt.full((33,), float(tiny))
    for y in (
        x + 0,
        x * 1,
        smelt.maximum(x, 0),
        x.relu(),
        x.sum(axis=0, keepdims=True) - 32 * x[:1],
        x.sqrt() ** 2,
        x.abs(),
    ):
        assert (y > 0).all() and (y < 1e-37).all()
    lowest = math.log(np.finfo(np.float32).tiny)
    at = smelt.tensor([lowest - 0.01, lowest - 5, lowest - 100, -INF, lowest + 0.01] * 7)
    got = smelt.exp(at).reshape(7, 5)
    assert (got[:, :4] == 0).all() and (got[:, 4] >= np.finfo(np.float32).tiny).all()
    assert (smelt.softmax(smelt.tensor([0.0, -95.0])) == smelt.tensor([1.0, 0.0])).all()


class Environment:
    """Sets the caller's SSE control word as another library might: flush to zero, or another rounding mode."""

    def __init__(self, bits):
        self.libm = ctypes.CDLL(ctypes.util.find_library("m"))
        self.bits = bits
        self.saved = ctypes.create_string_buffer(64)

    def control(self):
        now = ctypes.create_string_buffer(64)
        self.libm.fegetenv(now)
        return int.from_bytes(now.raw[28:32], "little")

    def __enter__(self):
        self.libm.fegetenv(self.saved)
        changed = bytearray(self.saved.raw)
        word = int.from_bytes(changed[28:32], "little") | self.bits
        changed[28:32] = word.to_bytes(4, "little")
        self.libm.fesetenv(ctypes.create_string_buffer(bytes(changed), 64))
        return self

    def __exit__(self, *_):
        self.libm.fesetenv(self.saved)


@pytest.mark.skipif(platform.machine() != "x86_64" or not ctypes.util.find_library("m"), reason="needs x86-64 and libm")
@pytest.mark.parametrize("bits", [0x8040, 0x2000, 0x4000, 0x6000], ids=["flush", "down", "up", "towards zero"])
def test_modes_of_the_calling_thread_change_nothing(bits, isa):
    x = smelt.cumsum(smelt.full((1000,), 0.1)) * 1e-38
    w = smelt.randn(64, 64)

    def results():
        a = smelt.ones(3).requires_grad_()
        (a * 0.1 / 3).exp().sum().backward()
        return [(x * 0.3).numpy(), (w @ w).numpy(), (w / 3).sum(0).numpy(), a.grad.numpy(), w.softmax().numpy()]

    expected = results()
    assert (expected[0][expected[0] != 0] < 1.2e-38).any(), "subnormal numbers are among the results"
    with Environment(bits) as environment:
        word = environment.control()
        assert word & bits == bits, "the mode is set"
        got = results()
        after = environment.control()
    assert after & 0xFFC0 == word & 0xFFC0, "the caller's modes are as they were (but for the exception flags)"
    for g, e in zip(got, expected):
        np.testing.assert_array_equal(g, e)


# ------------------------------------------------------------------------------------------------ empty and one element


@pytest.mark.parametrize("dtype", ORDER)
def test_reductions_of_nothing(dtype):
    x = smelt.zeros(0, dtype=dtype)
    assert x.sum().item() == 0 and x.prod().item() == 1
    assert x.any().item() is False and x.all().item() is True
    for f in (smelt.max, smelt.min, smelt.argmax, smelt.argmin):
        with pytest.raises(ValueError, match=rf"{f.__name__}: .*\(0,\)"):
            f(x)
        with pytest.raises(ValueError, match=r"\(0, 3\)"):
            f(smelt.zeros(0, 3, dtype=dtype), axis=0)
        assert f(smelt.zeros(0, 3, dtype=dtype), axis=1).shape == (0,)
    for f in (smelt.mean, smelt.var, smelt.std):
        assert math.isnan(f(x).item()) and f(smelt.zeros(2, 0, dtype=dtype), axis=1).isnan().all()
    assert smelt.zeros(3, 0, dtype=dtype).prod(axis=1).tolist() == [1, 1, 1]
    assert smelt.zeros(0, 3, dtype=dtype).sum(axis=0).tolist() == [0, 0, 0]
    assert smelt.zeros(0, 3, dtype=dtype).sum(axis=1).shape == (0,)


def test_functions_of_nothing():
    x = smelt.zeros(0, 4).requires_grad_()
    y = [
        x + 1, x * x, x.exp(), x.T, x.reshape(2, 0, 2), x.softmax(), x.log_softmax(), x[:, 1], x[smelt.zeros(0).bool()],
        smelt.concat([x, x]), smelt.stack([x]), x.sort(), x.cumsum(0), x.flip(), x.roll(1, 0), x.permute(1, 0), x @ x.T,
        x.T @ x, smelt.linear(x, smelt.ones(2, 4), smelt.ones(2)), x.broadcast_to(3, 0, 4), x.abs(),
        smelt.where(x > 0, x, 0), x.clip(0, 1), smelt.einsum("ij,ik->jk", x, x), x.masked_fill(x > 0, 1), smelt.dropout(x),
        smelt.layer_norm(x, smelt.ones(4), smelt.zeros(4)), smelt.conv2d(x.reshape(0, 2, 2, 1), smelt.ones(1, 1, 1, 1)),
        smelt.max_pool2d(x.reshape(0, 2, 2, 1), 2), x.topk(2)[0], x.double(), x.split(1, 1)[0], x.take(smelt.zeros(0).long()),
        smelt.pad(x, [(0, 0), (1, 1)]), x.var(1), x.tril(), smelt.embedding(smelt.zeros(0).long(), smelt.ones(2, 2)),
        smelt.tensor(x), x.copy(),
    ]  # fmt: skip
    assert y[16].shape == (0, 0) and y[17].tolist() == [[0] * 4] * 4 and y[18].shape == (0, 2)
    total = smelt.zeros(())
    for part in y:
        assert part.size == 0 or not part.bool().any()
        total = total + part.sum().float()
    total.backward()
    assert x.grad.shape == (0, 4) and total.item() == 0
    assert smelt.nonzero(x)[0].shape == (0,) and smelt.one_hot(smelt.zeros(0).long(), 3).shape == (0, 3)
    with smelt.no_grad():
        x[...] = 1
        x[[]] = 2


def test_the_mean_of_a_loss_over_no_row_is_nan():
    x, labels = smelt.zeros(0, 3), smelt.zeros(0).long()
    for loss in (
        losses.cross_entropy(x, labels),
        losses.mse_loss(x, x),
        losses.l1_loss(x, x),
        losses.huber_loss(x, x),
        losses.binary_cross_entropy_with_logits(x, x),
        losses.cross_entropy(smelt.zeros(2, 3), smelt.full((2,), -100)),  # every row is ignored
    ):
        assert loss.shape == () and math.isnan(loss.item())
    assert losses.cross_entropy(x, labels, reduction="sum").item() == 0
    assert losses.cross_entropy(x, labels, reduction="none").shape == (0,)


def test_variance_and_its_correction(rng):
    a = rng.normal(size=(6, 7))
    x = smelt.from_numpy(a)
    for axis in (None, 0, 1, (0, 1)):
        for correction in (0, 1):
            # Two passes over n <= 42 numbers around 1: a few n roundings of 2^-53 each.
            bound = dict(rtol=100 * 2.0**-53)
            np.testing.assert_allclose(
                x.var(axis, correction=correction).numpy(), a.var(axis, ddof=correction), **bound
            )
            np.testing.assert_allclose(
                x.std(axis, correction=correction).numpy(), a.std(axis, ddof=correction), **bound
            )
    assert x.var(0, keepdims=True).shape == (1, 7) and math.isnan(smelt.ones(1).var(correction=1).item())
    norm = nn.BatchNorm1d(7)
    y = norm(x.float())
    # float32: some roundings of 2^-24 for each of 6 numbers, around 1.
    np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * a.var(0, ddof=1), rtol=30 * 2.0**-24)
    np.testing.assert_allclose(y.detach().numpy().var(0), a.var(0) / (a.var(0) + 1e-5), rtol=60 * 2.0**-24)


# ---------------------------------------------------------------------------------------------------- random numbers


@pytest.mark.parametrize(
    "seed, low, high, expected",
    [  # the published vectors of Philox4x32-10: key, counter -> four words
        (0, 0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, 2**64 - 1, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (0x299F31D0A4093822, 0x85A308D3243F6A88, 0x0370734413198A2E, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_philox_vectors(seed, low, high, expected):
    assert _core.philox(seed, low, high) == expected


def test_random_numbers_depend_on_the_seed_and_the_order_of_calls_alone(isa):
    def draw():
        return [
            smelt.rand(1001), smelt.randn(37, 3), smelt.randint(-5, 5, 100), smelt.randperm(50),
            smelt.dropout(smelt.ones(999), 0.3), smelt.rand_like(smelt.ones(5)), nn.Linear(3, 4).weight.detach(),
        ]  # fmt: skip

    runs = []
    for threads in (1, 2, 3):
        smelt.set_num_threads(threads)
        smelt.manual_seed(7)
        runs.append(draw())
    state = smelt.get_rng_state()
    later = draw()
    smelt.set_rng_state(state)
    for a, b, c in zip(*runs):
        assert (a == b).all() and (a == c).all()
    for a, b, first in zip(later, draw(), runs[0]):
        assert (a == b).all() and not (a == first).all()
    smelt.manual_seed(8)
    assert not (smelt.rand(1001) == runs[0][0]).any()


def test_the_same_seed_gives_the_same_numbers_on_every_machine():
    """Element i of a call is lane i % 4 of counter i // 4: its upper 24 bits for a float32 in [0, 1)."""
    smelt.manual_seed(0)
    got = smelt.rand(10)
    words = [w for i in range(3) for w in _core.philox(0, i, 0)][:10]
    assert (got >= 0).all() and (got < 1).all()
    assert np.abs(got.double().numpy() - np.array(words) / 2.0**32).max() <= 2.0**-24


@pytest.mark.parametrize("bad", [-1, 2**64])
def test_seeds_out_of_range(bad):
    with pytest.raises(ValueError, match=f"manual_seed: .*{bad}"):
        smelt.manual_seed(bad)
