"""Functions that rearrange, select and compose, against NumPy bit for bit, with their gradients where they move values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import smelt

SHAPES = [(5,), (3, 4), (1, 6), (2, 3, 5), (0, 3), (2, 1, 3, 2)]
DTYPES = ["float32", "float64", "int64", "int32", "uint8", "bool"]


def numbered(shape, dtype="float32"):
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


def moves_alike(function, reference, a):
    """Equal values, and a gradient that is the reference's own: that of sum(f(x) w) collects w where x went to."""
    x = smelt.tensor(a)
    expected = reference(a)
    np.testing.assert_array_equal(function(x).numpy(), expected, strict=True)
    if a.dtype != np.float32:
        return
    x.requires_grad = True
    weights = (np.arange(expected.size) % 7 + 1).reshape(expected.shape).astype(np.float32)
    (function(x) * smelt.from_numpy(weights)).sum().backward()
    # The reference is linear with coefficients 0 and 1, so pushing basis positions through it gives its transpose.
    places = reference(np.arange(1, a.size + 1, dtype=np.float64).reshape(a.shape))
    wanted = np.zeros(a.size + 1)
    np.add.at(wanted, places.astype(int).reshape(-1), weights.reshape(-1).astype(np.float64))
    np.testing.assert_array_equal(x.grad.numpy(), wanted[1:].reshape(a.shape))


def along(axis, extent):
    """(ours, NumPy's) of every rearrangement along one axis."""
    pairs = [
        (lambda x: x.flip(axis), lambda a: np.flip(a, axis)),
        (lambda x: x.expand_dims(axis), lambda a: np.expand_dims(a, axis)),
        (lambda x: x.moveaxis(0, axis), lambda a: np.moveaxis(a, 0, axis)),
        (lambda x: x.swapaxes(0, axis), lambda a: np.swapaxes(a, 0, axis)),
        (lambda x: smelt.concat([x, x], axis), lambda a: np.concatenate([a, a], axis)),
        (lambda x: smelt.stack([x, x], axis), lambda a: np.stack([a, a], axis)),
    ]
    pairs += [(lambda x, n=n: x.roll(n, axis), lambda a, n=n: np.roll(a, n, axis)) for n in (0, 1, -2, 7, 2 * extent)]
    for i, begin in enumerate(range(0, extent, 2)):
        at = range(begin, min(begin + 2, extent))
        pairs.append((lambda x, i=i: x.split(2, axis)[i], lambda a, at=at: np.take(a, at, axis)))
    return pairs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rearrangements(shape, dtype):
    a = numbered(shape, dtype)
    order = [int(i) for i in np.random.default_rng(len(shape)).permutation(len(shape))]
    pairs = [
        (lambda x: x.reshape(a.size), np.ravel),
        (lambda x: x.flatten(), np.ravel),
        (lambda x: x.flip(), np.flip),
        (lambda x: x.T, np.transpose),
        (lambda x: x.squeeze(), np.squeeze),
        (lambda x: x.roll(3), lambda a: np.roll(a, 3)),
        (lambda x: x.broadcast_to(2, *shape), lambda a: np.broadcast_to(a, (2, *shape))),
        (lambda x: x.permute(*order), lambda a: np.transpose(a, order)),
    ]
    for axis in range(-len(shape), len(shape)):
        pairs += along(axis, shape[axis])
    for function, reference in pairs:
        moves_alike(function, reference, a)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != "bool"])  # NumPy's tril makes int64 of bool
@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (2, 3, 4), (0, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("diagonal", [-6, -1, 0, 1, 2, 6])
def test_triangles(shape, dtype, diagonal):
    a = numbered(shape, dtype)
    moves_alike(lambda x: smelt.tril(x, diagonal), lambda a: np.tril(a, diagonal), a)
    moves_alike(lambda x: smelt.triu(x, diagonal), lambda a: np.triu(a, diagonal), a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 3, 4), (0, 3)], ids=str)
def test_padding(shape, dtype):
    a = numbered(shape, dtype)
    rank = len(shape)
    moves_alike(lambda x: x.pad([2] * rank), lambda a: np.pad(a, 2), a)
    moves_alike(lambda x: x.pad([(0, 3)] * rank), lambda a: np.pad(a, [(0, 3)] * rank), a)
    expected = np.pad(a, [(1, 2)] * rank, constant_values=1)
    np.testing.assert_array_equal(smelt.pad(smelt.tensor(a), [(1, 2)] * rank, 1).numpy(), expected, strict=True)


EQUATIONS = [
    ("ij,jk->ik", (3, 4), (4, 5)), ("ij,jk", (3, 4), (4, 5)), ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("ij,kj->ik", (3, 4), (5, 4)), ("i,i->", (6,), (6,)), ("i,j->ij", (3,), (4,)), ("ij->ji", (3, 4)), ("ij->", (3, 4)),
    ("ij->j", (3, 4)), ("ii->i", (4, 4)), ("ii", (4, 4)), ("iij->j", (3, 3, 2)), ("ij,ij->i", (3, 4), (3, 4)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)), ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
    ("...ij,jk->...ik", (2, 3, 4), (4, 5)), ("...i->...", (2, 3, 4)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("ij,kl->ik", (2, 3), (4, 5)), ("ij,j->", (3, 4), (4,)), ("ijk,ik->ijk", (2, 3, 4), (2, 4)),
    ("i,i,i->i", (3,), (3,), (3,)),
    ("ij, jk -> ki", (3, 4), (4, 5)), ("ij,jk->ik", (3, 0), (0, 2)), ("ij,jk->ik", (0, 3), (3, 2)), ("ba,ca", (3, 4), (5, 4)),
]  # fmt: skip


@pytest.mark.parametrize("equation, shapes", [(e, s) for e, *s in EQUATIONS], ids=[e[0] for e in EQUATIONS])
def test_einsum(equation, shapes, rng):
    """Small integers: every sum is exact, in any order. The gradient is checked by differences in float64."""
    arrays = [rng.integers(-4, 5, s).astype(np.float32) for s in shapes]
    got = smelt.einsum(equation, *map(smelt.tensor, arrays))
    expected = np.einsum(equation.replace(" ", ""), *arrays)
    np.testing.assert_array_equal(got.numpy(), expected)
    assert got.shape == expected.shape
    wide = [smelt.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    if all(x.size for x in wide):
        assert smelt.gradcheck(lambda *x: smelt.einsum(equation, *x), wide)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_gather_and_scatter_add(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 5, rng.integers(1, 4)))
    axis = int(rng.integers(-len(shape), len(shape)))
    count = int(rng.integers(0, 6))
    index_shape = list(shape)
    index_shape[axis] = count
    index = rng.integers(0, shape[axis], index_shape)
    a, values = rng.integers(-9, 9, shape).astype(np.float32), rng.integers(-9, 9, index_shape).astype(np.float32)
    x = smelt.tensor(a, requires_grad=True)
    v = smelt.tensor(values, requires_grad=True)
    i = smelt.tensor(index)
    y = smelt.gather(x, i, axis)
    np.testing.assert_array_equal(y.numpy(), np.take_along_axis(a, index, axis))
    expected = a.copy()
    at = list(np.indices(index_shape))
    at[axis] = index
    np.add.at(expected, tuple(at), values)
    z = smelt.scatter_add(x, i, v, axis)
    np.testing.assert_array_equal(z.numpy(), expected)
    # Each is the other's gradient.
    (y * smelt.tensor(values)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected - a)
    x.grad = None
    weights = rng.integers(-9, 9, shape).astype(np.float32)
    (z * smelt.tensor(weights)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), weights)
    np.testing.assert_array_equal(v.grad.numpy(), np.take_along_axis(weights, index, axis))


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions_of_integers_are_exact(dtype, rng):
    a = rng.integers(0, 2 if dtype == "bool" else 4, (4, 5, 6)).astype(dtype)
    x = smelt.tensor(a)
    for axis in (None, 0, 1, -1, (0, 2), (0, 1, 2)):
        for keepdims in (False, True):
            options = dict(axis=axis, keepdims=keepdims)
            wide = a if a.dtype.kind == "f" else a.astype(np.int64)
            np.testing.assert_array_equal(smelt.sum(x, **options).numpy(), wide.sum(**options), strict=True)
            for name in ("any", "all", "max", "min"):
                got = getattr(x, name)(**options)
                np.testing.assert_array_equal(got.numpy(), getattr(a, name)(**options), strict=True)
    for axis in (0, 1, 2):
        np.testing.assert_array_equal(x.cumsum(axis).numpy(), a.astype(np.float64).cumsum(axis))
        np.testing.assert_array_equal(x[:2].prod(axis).numpy(), a[:2].astype(np.float64).prod(axis))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_every_length(dtype, isa):
    """Tails, and lengths without one: each element counts once."""
    for n in [*range(1, 70), 128, 1000, 8192, 8200, 20_000]:
        ones = smelt.ones(n, dtype=dtype)
        assert ones.sum().item() == n and ones.prod().item() == 1
        # The sum is exact; a mean multiplies it with 1 / n, each of which rounds once.
        assert abs(ones.mean().item() - 1) <= 2 * (2.0**-53 if dtype == "float64" else 2.0**-24)
        at = n * 5 // 7
        twos = np.ones(n, dtype)
        twos[at] = 0 if dtype == "bool" else 2
        x = smelt.tensor(twos)
        assert x.sum().item() == n + (-1 if dtype == "bool" else 1)
        assert x.prod().item() == (0 if dtype == "bool" else 2)
        assert x.argmax().item() == twos.argmax() and x.max().item() == twos.max() and x.min().item() == twos.min()


def test_where_masked_fill_one_hot_and_clip(rng):
    a, b = rng.normal(size=(2, 5, 4)).astype(np.float32)
    mask = rng.random(4) < 0.5
    x, y, m = map(smelt.tensor, (a, b, mask))
    np.testing.assert_array_equal(smelt.where(m, x, y).numpy(), np.where(mask, a, b))
    np.testing.assert_array_equal(smelt.where(m, x, 0).numpy(), np.where(mask, a, np.float32(0)))
    np.testing.assert_array_equal(x.masked_fill(m, -1e9).numpy(), np.where(mask, np.float32(-1e9), a))
    np.testing.assert_array_equal(x.clip(-0.5, 0.5).numpy(), a.clip(-0.5, 0.5))
    labels = rng.integers(0, 6, (2, 3))
    np.testing.assert_array_equal(smelt.one_hot(smelt.tensor(labels), 6).numpy(), np.eye(6, dtype=np.float32)[labels])
    x.requires_grad = y.requires_grad = True
    smelt.where(m, x, y).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.broadcast_to(mask, a.shape))
    np.testing.assert_array_equal(y.grad.numpy(), np.broadcast_to(~mask, a.shape))


def test_nan_does_not_leak_out_of_what_where_does_not_take():
    x = smelt.tensor([1.0, -1.0], requires_grad=True)
    smelt.where(x > 0, x, float("nan")).masked_fill(x < 0, 0).sum().backward()
    assert x.grad.tolist() == [1, 0]


def test_images_change_their_layout():
    a = numbered((2, 3, 4, 5))
    np.testing.assert_array_equal(smelt.to_nhwc(smelt.tensor(a)).numpy(), a.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(smelt.to_nchw(smelt.tensor(a)).numpy(), a.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(smelt.to_nhwc(smelt.to_nchw(smelt.tensor(a[0]))).numpy(), a[0])


def test_clip_of_integers():
    x = smelt.tensor([1, 2, 3])
    assert smelt.clip(x, 2).tolist() == [2, 2, 3] and smelt.clip(x, 2).dtype == "int64"
    for half in (0.5, np.float32(0.5)):
        got = smelt.clip(x, half, 2.5)  # a float beside integers gives float32, as in arithmetic
        assert got.dtype == "float32" and got.tolist() == [1, 2, 2.5]
    assert smelt.clip(x.to("uint8"), -5, 300).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "grad", [np.array([1.0, 2.0]), np.array([1, 2]), [1, 2.0], (1, 2), smelt.tensor([1.0, 2.0])], ids=repr
)
def test_backward_takes_arrays(grad):
    x = smelt.tensor([3.0, 4.0], requires_grad=True)
    (x * x).backward(grad)
    assert x.grad.tolist() == [6, 16]
    y = smelt.tensor(3.0, requires_grad=True)
    (y * y).backward(np.float64(0.5))
    assert y.grad.item() == 3


def test_index_functions_take_arrays():
    x = smelt.tensor([[1.0, 2.0], [3.0, 4.0]])
    for at in (np.array([[1, 0]]), [[1, 0]], smelt.tensor([[1, 0]])):
        assert smelt.gather(x, at, 0).tolist() == [[3, 2]]
        assert smelt.scatter_add(x, at, np.ones((1, 2), np.float32), np.int64(0)).tolist() == [[1, 3], [4, 4]]
        assert smelt.embedding(at, x).tolist() == [[[3, 4], [1, 2]]]
        assert smelt.one_hot(at, 2).tolist() == [[[0, 1], [1, 0]]]


def test_arange_takes_any_number():
    for stop in (np.int32(3), np.array(3), smelt.tensor(3)):
        got = smelt.arange(stop)
        assert got.dtype == "int64" and got.tolist() == [0, 1, 2]
    assert smelt.arange(np.float32(1.5)).tolist() == [0, 1]
    assert smelt.arange(0, -1e300).shape == smelt.arange(0, -1e300, 1e-300).shape == (0,)
