"""The tensor as an object: creation, Python's protocols, operators, views, memory, and errors with values."""

import copy
import gc
import operator
import pickle

import numpy as np
import pytest

import smelt

DTYPES = ["float32", "float64", "bfloat16", "float16", "int64", "int32", "uint8", "bool"]
NUMPY_DTYPES = [d for d in DTYPES if d != "bfloat16"]


def same(got, expected):
    """Equal in shape, dtype and every value, NaN included."""
    got = got.numpy() if isinstance(got, smelt.Tensor) else np.asarray(got)
    expected = np.asarray(expected)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected, strict=True)


# ---------------------------------------------------------------------------------------------------------- creation


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4), (1,) * 8])
def test_filled_tensors(dtype, shape):
    for make, value in [(smelt.zeros, 0), (smelt.ones, 1)]:
        x = make(shape, dtype=dtype)
        assert x.shape == shape and x.dtype == dtype and x.device == "cpu" and x.ndim == len(shape)
        assert x.size == np.prod(shape) and x.nbytes == x.size * x.itemsize and not x.requires_grad
        same(x.float(), np.full(shape, value, np.float32))
        same(make(*shape, dtype=dtype).float(), x.float().numpy())
    base = smelt.empty(shape, dtype=dtype)
    assert base.shape == shape and base.dtype == dtype
    for like, value in [(smelt.zeros_like, 0), (smelt.ones_like, 1), (lambda x: smelt.full_like(x, 1), 1)]:
        x = like(base)
        assert x.dtype == dtype
        same(x.float(), np.full(shape, value, np.float32))
    assert smelt.zeros_like(base, dtype="int32").dtype == "int32"


@pytest.mark.parametrize("value, dtype", [(2, "int64"), (2.5, "float32"), (True, "bool"), (np.int32(3), "int64")])
def test_full_takes_the_dtype_of_its_value(value, dtype):
    x = smelt.full((2, 2), value)
    assert x.dtype == dtype and x.tolist() == [[value, value]] * 2
    assert smelt.full(3, value, dtype="float64").dtype == "float64"


@pytest.mark.parametrize(
    "arguments", [(5,), (0,), (-3,), (2, 8, 3), (5, 0, -2), (0, 5, -1), (3, 3), (-2, 2), (0, 2**40, 2**38)]
)
def test_arange_of_integers(arguments):
    same(smelt.arange(*arguments), np.arange(*arguments, dtype=np.int64))
    same(smelt.arange(*arguments, dtype="float64"), np.arange(*arguments, dtype=np.float64))


@pytest.mark.parametrize("arguments", [(1.5,), (0, 1, 0.25), (1, 0, -0.125), (0.5, 0.5), (-1.5, 2)])
def test_arange_of_floats(arguments):
    same(smelt.arange(*arguments), np.arange(*arguments, dtype=np.float32))  # exact: binary fractions


def test_eye_and_linspace():
    for n, m in [(3, None), (2, 4), (4, 2), (0, 3), (3, 0)]:
        same(smelt.eye(n, m), np.eye(n, m, dtype=np.float32))
    same(smelt.eye(2, dtype="bool"), np.eye(2, dtype=bool))
    same(smelt.linspace(-1, 3, 9), np.linspace(-1, 3, 9, dtype=np.float32))
    same(smelt.linspace(2, 5, 1), np.array([2], np.float32))


@pytest.mark.parametrize(
    "data, dtype, shape",
    [
        (3, "int64", ()),
        (3.0, "float32", ()),
        (True, "bool", ()),
        ([], "float32", (0,)),
        ([[]], "float32", (1, 0)),
        ([[1, 2], [3, 4]], "int64", (2, 2)),
        ([1, 2.5], "float32", (2,)),
        ([True, 2], "int64", (2,)),
        (range(3), "int64", (3,)),
        ((1.0, 2.0), "float32", (2,)),
        (np.float64(2), "float64", ()),
        (np.arange(3, dtype=np.int8), "int32", (3,)),
        (np.arange(3, dtype=np.int16), "int32", (3,)),
        (np.arange(3, dtype=np.uint16), "int32", (3,)),
        (np.arange(3, dtype=np.uint32), "int64", (3,)),
        (np.array([2**32 - 1], np.uint32), "int64", (1,)),
    ],
)
def test_tensor_of_python_data(data, dtype, shape):
    x = smelt.tensor(data)
    assert x.dtype == dtype and x.shape == shape
    assert x.tolist() == np.asarray(data).tolist()


def test_tensor_of_tensors_copies():
    x = smelt.tensor([1.0, 2.0], requires_grad=True)
    y = smelt.tensor(x)
    assert not y.requires_grad and not y._same_memory(x)
    assert smelt.tensor([[x, x], [x, x]]).shape == (2, 2, 2)
    assert smelt.tensor([x.sum(), 4]).tolist() == [3, 4]
    assert smelt.tensor(smelt.ones(2, 3).T).shape == (3, 2)
    a = np.ones(2, np.float32)
    z = smelt.tensor(a)
    a[0] = 5
    assert z.tolist() == [1, 1]


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: smelt.zeros(-1), ValueError, r"negative.*\(-1,\)"),
        (lambda: smelt.zeros(2, -3), ValueError, r"\(2, -3\)"),
        (lambda: smelt.full((-1,), 2), ValueError, r"full: .*\(-1,\)"),
        (lambda: smelt.empty(-2), ValueError, r"empty: .*\(-2,\)"),
        (lambda: smelt.rand(3, -1), ValueError, r"\(3, -1\)"),
        (lambda: smelt.randn(-1), ValueError, r"\(-1,\)"),
        (lambda: smelt.eye(-1), ValueError, "eye: .*-1"),
        (lambda: smelt.eye(2, -4), ValueError, "eye: .*-4"),
        (lambda: smelt.zeros(2.5), TypeError, "2.5"),
        (lambda: smelt.zeros("3"), TypeError, "'3'"),
        (lambda: smelt.zeros(2, None), TypeError, "None"),
        (lambda: smelt.zeros((1,) * 9), ValueError, "at most 8 axes"),
        (lambda: smelt.arange(0, 5, 0), ValueError, "arange: step must not be 0"),
        (lambda: smelt.linspace(0, 1, 0), ValueError, "linspace: count must be at least 1, got 0"),
        (lambda: smelt.randint(3, 3, 2), ValueError, "randint: .*3"),
        (lambda: smelt.tensor([[1], [1, 2]]), ValueError, "tensor: .*ragged"),
        (lambda: smelt.tensor("abc"), TypeError, "tensor: data must be numbers, got str"),
        (lambda: smelt.tensor([1, None]), TypeError, "tensor: data must be numbers, got list"),
        (lambda: smelt.tensor(1j), TypeError, "complex"),
        (lambda: smelt.tensor([2**70]), TypeError, "tensor: "),
        (lambda: smelt.tensor([1], requires_grad=True), TypeError, "requires_grad: needs a floating dtype, got int64"),
        (lambda: smelt.zeros(1, dtype="complex64"), TypeError, "dtype: must be one of .*'complex64'"),
        (lambda: smelt.zeros(1, dtype=np.int8), TypeError, "dtype: must be one of .*int8"),
        (lambda: smelt.ones(2).to("float31"), TypeError, "'float31'"),
        (lambda: smelt.zeros(1, device="tpu"), ValueError, "device: must be 'cpu', .* got 'tpu'"),
        (lambda: smelt.ones(1).to(device="tpu"), ValueError, "got 'tpu'"),
        (lambda: smelt.memory_stats("tpu"), ValueError, "got 'tpu'"),
        (lambda: smelt.from_numpy([1, 2]), TypeError, "from_numpy: .*list"),
    ],
)
def test_creation_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_absent_device_is_named():
    if not smelt.runtime.info()["devices"]["cuda"]["available"]:
        with pytest.raises((RuntimeError, ValueError), match="cuda: "):
            smelt.zeros(2, device="cuda")


@pytest.mark.parametrize("make", [smelt.zeros, smelt.ones, smelt.empty, smelt.rand])
def test_memory_error_names_op_and_bytes(make):
    for n in (1 << 55, 1 << 61):  # beyond any address space
        with pytest.raises(MemoryError, match=rf"^(?!smelt: )\w+: .*{n * 4 if n < 1 << 60 else n}"):
            make(n)
    with pytest.raises(MemoryError, match="bytes"):
        make(1 << 40, 1 << 40)  # the product does not fit 64 bits
    x = smelt.ones(8)
    assert (x + x).sum().item() == 16, "the library works on after a refusal"


# --------------------------------------------------------------------------------------------------------- protocols


@pytest.mark.parametrize(
    "x, text",
    [
        (smelt.tensor(1.0), "tensor(1.)"),
        (smelt.tensor([[1.0, 2.5], [3.0, 4.0]]), "tensor([[1. , 2.5],\n        [3. , 4. ]])"),
        (smelt.tensor([1, 2]), "tensor([1, 2])"),
        (smelt.tensor([True]), "tensor([ True])"),
        (smelt.tensor([1, 2], dtype="int32"), "tensor([1, 2], dtype=int32)"),
        (smelt.tensor([1.5], dtype="bfloat16"), "tensor([1.5], dtype=bfloat16)"),
        (smelt.zeros(0), "tensor([])"),
        (smelt.zeros(2, 0, dtype="float64"), "tensor([], shape=(2, 0), dtype=float64)"),
        (smelt.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (smelt.tensor([1.0], requires_grad=True) * 2, "tensor([2.], grad_fn=<mul>)"),
        (smelt.tensor([float("nan"), float("inf")]), "tensor([nan, inf])"),
        (smelt.tensor([3e-5]), "tensor([3.e-05])"),
        (smelt.tensor([1.5, 3e-5]), "tensor([1.5e+00, 3.0e-05])"),
    ],
)
def test_repr(x, text):
    assert repr(x) == text
    assert str(x) == text and f"{x}" == (text if x.ndim else "1.0")


def test_repr_of_a_small_number():
    x = smelt.tensor(3e-5, requires_grad=True)
    assert repr(x) == "tensor(3.e-05, requires_grad=True)" and repr(x * 2) == "tensor(6.e-05, grad_fn=<mul>)"


def test_repr_of_a_large_tensor_is_short():
    assert len(repr(smelt.zeros(100_000))) < 100
    assert f"{smelt.tensor(1.23456):.2f}" == "1.23"


def test_length_iteration_and_containment():
    x = smelt.arange(6).reshape(3, 2)
    assert len(x) == 3 and [row.tolist() for row in x] == [[0, 1], [2, 3], [4, 5]]
    first, *_ = x
    assert first._same_memory(x), "a row is a view"
    assert 5 in x and 6 not in x and list(smelt.zeros(0)) == []
    for call in (len, iter, list):
        with pytest.raises(TypeError, match=r"shape \(\)"):
            call(smelt.tensor(1))


@pytest.mark.parametrize("value", [0, 1, -3, 2.75, -0.0, True, False, 2**53 + 1])
def test_conversion_to_python_numbers(value):
    for x in (smelt.tensor(value), smelt.tensor([[value]])):
        assert bool(x) == bool(value) and int(x) == int(x.item()) and float(x) == float(x.item())
        if not isinstance(value, float):
            assert x.item() == value and type(x.item()) is type(value) and int(x) == int(value)
        else:
            assert x.item() == value  # binary fractions
    assert smelt.tensor(value).tolist() == value


def test_bool_of_nan_and_index():
    assert bool(smelt.tensor(float("nan"))) and not bool(smelt.tensor(0.0))
    assert [10, 11, 12][smelt.tensor(2)] == 12 and range(smelt.tensor([3], dtype="uint8"))[-1] == 2
    for x in (smelt.tensor(1.0), smelt.tensor(True)):
        with pytest.raises(TypeError, match="index: needs an integer tensor, got"):
            operator.index(x)
    with pytest.raises(ValueError, match="NaN"):
        int(smelt.tensor(float("nan")))


@pytest.mark.parametrize("convert", [bool, int, float, operator.methodcaller("item")])
@pytest.mark.parametrize("shape", [(0,), (2, 2)])
def test_only_one_element_has_a_value(convert, shape):
    with pytest.raises(ValueError, match=r"got shape \(" + ("0,"[:2] if shape == (0,) else "2, 2")):
        convert(smelt.ones(shape))


def test_copies_and_pickling():
    x = smelt.tensor([1.0, 2.0], requires_grad=True)
    for made in (x.copy(), x.clone(), copy.copy(x)):
        assert not made._same_memory(x) and made.tolist() == [1, 2] and not made.requires_grad
    deep = copy.deepcopy({"a": x})["a"]
    assert deep.requires_grad and not deep._same_memory(x)
    with pytest.raises(RuntimeError, match=r"deepcopy: .*detach"):
        copy.deepcopy(x * 2)
    with pytest.raises(TypeError, match=r"pickle: .*smelt.save"):
        pickle.dumps(x)


def test_hash_is_identity():
    x, y = smelt.ones(2), smelt.ones(2)
    assert {x: 1, y: 2}[x] == 1 and hash(x) == hash(x) and len({x, y, x}) == 2


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4)])
def test_transposition(shape):
    a = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    same(smelt.from_numpy(a).T, a.T)
    same(smelt.from_numpy(a).T.T, a)
    same(smelt.from_numpy(a).T + 0, a.T)
    same(smelt.from_numpy(a).T.copy(), a.T)


@pytest.mark.parametrize("name", ["float", "double", "half", "bfloat16", "int", "long", "bool"])
def test_converting_methods(name):
    x = smelt.tensor([0, 1, 2])
    dtype = {"float": "float32", "double": "float64", "half": "float16", "int": "int32", "long": "int64"}.get(
        name, name
    )
    y = getattr(x, name)()
    assert y.dtype == dtype and y.float().tolist() == ([0, 1, 1] if name == "bool" else [0, 1, 2])
    assert getattr(y, name)() is y or getattr(y, name)()._same_memory(y), "nothing to convert: no copy"
    assert x.to(dtype).dtype == x.astype(dtype).dtype == x.to("cpu", dtype).dtype == x.to(dtype=dtype).dtype == dtype


# --------------------------------------------------------------------------------------------------------- operators

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


def operands(rng, dtype, shape):
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if dtype.startswith("int"):
        return rng.integers(-9, 10, shape, dtype=dtype)
    return np.round(rng.normal(size=shape) * 4, 1).astype(dtype)


def numpy_result(op, a, b):
    """NumPy's result by the rules of docs/semantics.md: true division of integers is done in float32."""
    with np.errstate(all="ignore"):
        if op is operator.truediv and a.dtype.kind != "f":
            return op(np.float32(a), np.float32(b))
        if a.dtype == np.float16:
            return op(np.float32(a), np.float32(b)).astype(np.float16)
        return op(a, b)


@pytest.mark.parametrize("op", ARITHMETIC, ids=lambda op: op.__name__)
@pytest.mark.parametrize("dtype", [d for d in NUMPY_DTYPES if d != "bool"])
def test_arithmetic_is_numpys(op, dtype, rng):
    """Single IEEE operations and integers: bit for bit. Division and remainder by 0 are among the operands."""
    for left, right in [((5, 7), (5, 7)), ((5, 1), (7,)), ((), (3, 2)), ((0, 4), (4,)), ((2, 3, 1, 5), (3, 4, 1))]:
        a, b = operands(rng, dtype, left), operands(rng, dtype, right)
        x, y = smelt.tensor(a), smelt.tensor(b)
        expected = numpy_result(op, a, b)
        same(op(x, y), expected)
        same(op(a, y), expected)  # NumPy on the left
        same(op(x, b), expected)  # and on the right


@pytest.mark.parametrize("op", COMPARISONS, ids=lambda op: op.__name__)
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_comparisons_are_numpys(op, dtype, rng):
    a, b = operands(rng, dtype, (6, 5)), operands(rng, dtype, (6, 1))
    if a.dtype.kind == "f":
        a[0], b[1] = np.nan, np.nan
    x, y = smelt.tensor(a), smelt.tensor(b)
    for got in (op(x, y), op(a, y), op(x, b)):
        same(got, op(a, b))
    number = a[3, 3].item()
    same(op(x, number), op(a, a[3, 3]))
    same(op(number, x), op(a[3, 3], a))


def test_operators_with_numbers_on_either_side():
    x = smelt.tensor([2.0, -4.0])
    for number in (8, 8.0, np.float64(8), np.int64(8), np.float32(8), np.uint8(8)):
        assert (number - x).tolist() == [6, 12] and (x - number).tolist() == [-6, -12]
        assert (number / x).tolist() == [4, -2] and (number // x).tolist() == [4, -2]
        assert (number % x).tolist() == [0, 0] and (number + x).dtype == (x * number).dtype == "float32"
    assert (2**x).tolist() == [4, 0.0625] and (x**2).tolist() == [4, 16] and pow(x, 3).tolist() == [8, -64]
    assert (-x).tolist() == [-2, 4] and (+x).tolist() == [2, -4] and abs(x).tolist() == [2, 4]


def test_numpy_on_the_left_gives_a_tensor_with_a_gradient():
    x = smelt.tensor([1.0, 2.0], requires_grad=True)
    y = np.array([3.0, 4.0], np.float32) * x
    assert isinstance(y, smelt.Tensor)
    y.sum().backward()
    assert x.grad.tolist() == [3, 4]
    assert isinstance(np.ones((2, 2), np.float32) @ x, smelt.Tensor)
    with pytest.raises(TypeError, match="ufunc"):
        np.sin(x)


def test_logical_operators(rng):
    a, b = rng.random(20) < 0.5, rng.random(20) < 0.5
    x, y = smelt.tensor(a), smelt.tensor(b)
    for op in (operator.and_, operator.or_, operator.xor):
        for got in (op(x, y), op(a, y), op(x, b)):
            same(got, op(a, b))
        same(op(True, x), op(True, a))
        for other in (smelt.tensor([1]), 1, np.ones(20, np.int64)):
            with pytest.raises(TypeError, match="needs bool tensors, got"):
                op(x, other)
        with pytest.raises(TypeError, match="needs bool tensors, got int64"):
            op(smelt.tensor([1]), smelt.tensor([1]))
    same(~x, ~a)
    with pytest.raises(TypeError, match="needs a bool tensor, got int64"):
        ~smelt.tensor([1])


def test_augmented_assignment_rebinds():
    x = smelt.ones(2)
    before, view = x, x[:1]
    for op in ("+=", "-=", "*=", "/=", "//=", "%=", "**="):
        space = {"x": before}
        exec(f"x {op} 2", space)
        assert space["x"] is not before
    x += 1
    assert x is not before and before.tolist() == [1, 1] and view.tolist() == [1] and x.tolist() == [2, 2]


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda x: x + smelt.ones(3), ValueError, r"add: .*\(2, 2\) and \(3,\)"),
        (lambda x: x @ smelt.ones(3), ValueError, "matmul: inner extents must be equal, got 2 and 3"),
        (lambda x: x + "a", TypeError, "unsupported"),
        (lambda x: x < "a", TypeError, "not supported"),
        (lambda x: x + object(), TypeError, "unsupported"),
        (lambda x: smelt.where(x, x, 0), TypeError, "where: condition must be bool, got float32"),
        (lambda x: x.masked_fill(x, 0), TypeError, "masked_fill: .*float32"),
        (lambda x: x.sum(axis=2), ValueError, r"sum: axis must be in \[-2, 2\), got 2"),
        (lambda x: x.sum(axis=(0, -2)), ValueError, "sum: axis .* is named twice"),
        (lambda x: x.sort(axis=2), ValueError, r"sort: axis must be in \[-2, 2\), got 2"),
        (lambda x: x.argsort(axis=-3), ValueError, r"argsort: axis must be in \[-2, 2\), got -3"),
        (lambda x: x.topk(1, axis=5), ValueError, r"topk: axis must be in \[-2, 2\), got 5"),
        (lambda x: x.topk(3), ValueError, "topk: k must be from 0 to 2, got 3"),
        (lambda x: x.topk(-1), ValueError, "got -1"),
        (lambda x: x.reshape(3), ValueError, r"reshape: cannot view \(2, 2\) \(4 elements\) as \(3,\)"),
        (lambda x: x.reshape(-1, -1), ValueError, "only one extent may be -1"),
        (lambda x: x.reshape(-2, -2), ValueError, "got -2"),
        (lambda x: smelt.zeros(0, 3).reshape(-1, 0), ValueError, r"\(-1, 0\)"),
        (lambda x: x.permute(0, 0), ValueError, "permute: axis 0 is named twice"),
        (lambda x: x.permute(0), ValueError, "permute: needs 2 axes"),
        (lambda x: x.flip(3), ValueError, r"flip: axis must be in \[-2, 2\), got 3"),
        (lambda x: x.roll(1, 2), ValueError, r"roll: axis must be in \[-2, 2\), got 2"),
        (lambda x: x.squeeze(0), ValueError, r"squeeze: axis 0 must have extent 1, shape is \(2, 2\)"),
        (lambda x: x.expand_dims(4), ValueError, r"expand_dims: axis must be in \[-3, 3\), got 4"),
        (lambda x: x.broadcast_to(3, 2), ValueError, r"\(2, 2\) and \(3, 2\)"),
        (lambda x: x.split([1, 2]), ValueError, r"split: sizes must add up to 2, got \[1, 2\]"),
        (lambda x: x.split(0), ValueError, "split: .* got 0"),
        (lambda x: smelt.concat([]), ValueError, "concat: needs at least one tensor"),
        (lambda x: smelt.stack([]), ValueError, "stack: needs at least one tensor"),
        (lambda x: smelt.concat([x, smelt.ones(2, 3)]), ValueError, r"concat: .*\(2, 2\) and \(2, 3\)"),
        (lambda x: smelt.stack([x, smelt.ones(2, 3)]), ValueError, r"stack: .*\(2, 2\) and \(2, 3\)"),
        (lambda x: x.pad([(1, -1), (0, 0)]), ValueError, r"pad: widths must not be negative, got \(1, -1\)"),
        (lambda x: x.pad([(1, 1)]), ValueError, "pad: needs .* 2 axes, got 1"),
        (lambda x: x[0].tril(), ValueError, r"tril: needs at least 2 axes, got shape \(2,\)"),
        (lambda x: x.copy_(smelt.ones(3)), ValueError, r"copy_: source must have shape \(2, 2\), got \(3,\)"),
        (lambda x: x.copy_(5), TypeError, "copy_: .*int"),
        (lambda x: x.assign_(smelt.ones(3)), ValueError, r"\(3,\) and \(2, 2\)"),
        (lambda x: smelt.einsum("ij,jk->ik", x, smelt.ones(3, 3)), ValueError, "axis 'j' .* got 2 and 3"),
        (lambda x: smelt.einsum("ij,jk->iz", x, x), ValueError, "'ij,jk->iz'"),
        (lambda x: smelt.einsum("ij", x, x), ValueError, "names 1 operands, got 2"),
        (lambda x: smelt.einsum("ijk", x), ValueError, r"names 3 axes for an operand of shape \(2, 2\)"),
        (lambda x: smelt.to_nhwc(x), ValueError, r"to_nhwc: .* got shape \(2, 2\)"),
        (lambda x: x.bool() - x.bool(), TypeError, "sub: bool"),
        (lambda x: -x.bool(), TypeError, "neg: bool"),
    ],
)
def test_errors_of_operations(call, error, text):
    with pytest.raises(error, match=text):
        call(smelt.ones(2, 2))


# ------------------------------------------------------------------------------------------------- views and versions


def test_what_shares_memory_and_what_copies():
    x = smelt.arange(24.0).reshape(3, 2, 4)
    views = [
        x.reshape(6, 4), x.reshape(-1), x.flatten(), x.flatten(1), x[0], x[:1], x[0:2], x[0][0], x.expand_dims(0),
        x[None], x[...], x.expand_dims(1).squeeze(1), x.detach(), x.data, x.view(4, 6), x.reshape(6, 4)[0],
    ]  # fmt: skip
    for i, view in enumerate(views):
        assert view._same_memory(x), f"view {i} must share memory"
        view[...] = -1
        assert (x.numpy().reshape(-1)[: view.size] == -1).all(), f"a write through view {i} must show"
        x.assign_(smelt.arange(24.0).reshape(3, 2, 4))
    copies = [
        x[:, :1], x[:, 0], x[..., 0], x[::2], x[::-1], x[smelt.tensor([0])], x[x >= 0], x.permute(0, 2, 1), x.copy(),
        x.permute(0, 1, 2), x.flip(), x.roll(1, 0), x.broadcast_to(1, 3, 2, 4), x.astype("float64").float(),
        x.swapaxes(0, 1), x.moveaxis(0, 0) * 1, smelt.concat([x]), smelt.stack([x])[0], x.split(1, 1)[0], +(x + 0),
    ]  # fmt: skip
    for i, made in enumerate(copies):
        with smelt.no_grad():
            made[...] = -1
        assert (x >= 0).all(), f"copy {i} must not share memory"


def test_a_later_row_is_a_view_at_its_offset():
    x = smelt.arange(12).reshape(4, 3)
    x[2][1] = 100
    x[1:3].reshape(-1)[0] = 50
    assert x.tolist() == [[0, 1, 2], [50, 4, 5], [6, 100, 8], [9, 10, 11]]


def test_a_transposed_view_is_consumed_by_products_and_not_written():
    x = smelt.arange(6.0).reshape(2, 3)
    same(x.T @ x, x.numpy().T @ x.numpy())  # integers: exact
    same(x.swapaxes(-1, -2) + 1, x.numpy().T + 1)
    before = x.numpy().copy()
    for write in (
        lambda t: t.assign_(1),
        lambda t: t.__setitem__(0, 1),
        lambda t: t.__setitem__(np.array([0]), 9),
        lambda t: t.__setitem__(t > 0, 9),
    ):
        with pytest.raises(ValueError, match="assign: a transposed view cannot be written"):
            write(x.T)
    same(x, before)


def test_every_write_moves_the_version_of_all_views():
    x = smelt.zeros(4)
    view, made = x[1:3], x.copy()
    for write in (
        lambda: x.__setitem__(0, 1),
        lambda: view.__setitem__(..., 2),
        lambda: x.__setitem__(smelt.tensor([1, 1]), 3),
        lambda: x.__setitem__(x > 0, 4),
        lambda: x.assign_(5),
        lambda: x.copy_(smelt.ones(4)),
        lambda: view.assign_([1, 2]),
        lambda: setattr(x, "data", smelt.ones(4)),
    ):
        versions = x._version, view._version, x.detach()._version
        write()
        assert x._version > versions[0] and view._version > versions[1] and x.detach()._version > versions[2]
    version = x._version
    _ = x + 1, x[0], x.numpy(), x.T @ x, x.copy(), x.sum()
    x += 1
    assert view._version == version, "reading moves no version"
    assert made._version == 0 and made.tolist() == [0] * 4


def test_assignment_broadcasts_and_converts():
    x = smelt.zeros(2, 3, dtype="int32")
    assert x.assign_([1.9, -2.9, 300]).tolist() == [[1, -2, 300]] * 2 and x.dtype == "int32"
    assert x.copy_(smelt.full((2, 3), 2.7)).tolist() == [[2] * 3] * 2
    x[:, 1] = np.array([8, 9])
    assert x.tolist() == [[2, 8, 2], [2, 9, 2]]
    x[0] = x[1]
    assert x[0].tolist() == [2, 9, 2]
    y = smelt.arange(5)
    y[1:] = y[:-1]  # source and target overlap
    assert y.tolist() == [0, 0, 1, 2, 3]
    y[:-1] = y[1:]
    assert y.tolist() == [0, 1, 2, 3, 3]
    z = smelt.arange(4.0)
    z.assign_(z[::-1])
    assert z.tolist() == [3, 2, 1, 0]


WRITES = ["x[0] = v", "x[[0]] = v", "x[x >= 0] = v", "x[:1] = [v]", "x[...] = v", "x.assign_(v)", "x.assign_([v])"]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("dtype, value", [("float64", 0.1), ("int64", 2**53 + 1), ("float64", 1e300)])
def test_a_written_number_is_not_rounded_on_its_way(write, dtype, value):
    x = smelt.zeros(1, dtype=dtype)
    exec(write, {"x": x, "v": value})
    assert x.item() == value
    assert smelt.tensor([value], dtype=dtype).item() == smelt.full((), value, dtype=dtype).item() == value


@pytest.mark.parametrize("write", ["x[0] = 1", "x[x > 0] = 1", "x.assign_(1)", "x.copy_(smelt.ones(2))"])
def test_writing_needs_no_grad(write):
    leaf = smelt.tensor([1.0, 2.0], requires_grad=True)
    for x in (leaf, leaf * 1, leaf[:1].reshape(1)):
        if x.size == 1 and "copy_" in write:
            continue
        with pytest.raises(RuntimeError, match=r"assign: .* smelt.no_grad\(\)"):
            exec(write, {"x": x, "smelt": smelt})
    with smelt.no_grad():
        exec(write, {"x": leaf, "smelt": smelt})
    assert leaf.tolist() in ([1, 2], [1, 1]) and leaf.requires_grad
    assert leaf.tolist() == ([1, 2] if write == "x[0] = 1" else [1, 1])


# ------------------------------------------------------------------------------------------------------------ memory


def test_memory_is_counted_and_given_back():
    gc.collect()
    smelt.empty_cache()
    smelt.reset_peak_memory()
    start = smelt.memory_stats()
    assert start["cached"] == 0 and start["peak_in_use"] == start["in_use"]
    x = smelt.zeros(1000, 1000)
    held = smelt.memory_stats()
    assert x.nbytes <= held["in_use"] - start["in_use"] <= 1.25 * x.nbytes, "a block is at most a quarter too large"
    assert held["allocations"] - start["allocations"] == 1 and held["peak_in_use"] >= held["in_use"]
    view = x[10:20]
    del x
    assert smelt.memory_stats()["in_use"] == held["in_use"], "a view keeps the memory"
    del view
    after = smelt.memory_stats()
    assert after["in_use"] == start["in_use"] and after["cached"] >= 4_000_000
    y = smelt.ones(1000, 1000)
    assert smelt.memory_stats()["system_allocations"] == held["system_allocations"], "the block is used again"
    del y
    smelt.empty_cache()
    assert smelt.memory_stats()["cached"] == 0 and smelt.memory_stats()["peak_in_use"] >= held["in_use"]
    smelt.reset_peak_memory()
    assert smelt.memory_stats()["peak_in_use"] == smelt.memory_stats()["in_use"]


def test_objects_are_freed_by_reference_counting():
    gc.collect()
    gc.disable()
    try:
        start = smelt.memory_stats()["in_use"]
        x = smelt.ones(64, 64, dtype="float32").requires_grad_()
        y = ((x @ x.T).exp()[::2] * 2).softmax().sum()
        a = x.detach().numpy()[:3]
        y.backward()
        del x, y
        assert smelt.memory_stats()["in_use"] > start, "NumPy's view keeps the memory"
        del a
        assert smelt.memory_stats()["in_use"] == start
    finally:
        gc.enable()
