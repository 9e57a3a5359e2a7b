"""x[...] against NumPy: random index expressions, reading, assignment, gradients, and errors with values."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import smelt

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)
SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)


def random_slice(rng, n):
    def bound():
        return None if rng.random() < 0.3 else int(rng.integers(-n - 2, n + 3))

    step = int(rng.choice([-3, -2, -1, 1, 1, 2, 3]))
    return slice(bound(), bound(), step if rng.random() < 0.7 else None)


def random_index(rng, shape, arrays):
    """A valid index for the shape: ints, slices, None, Ellipsis, and with `arrays` masks and integer arrays."""
    key, axis = [], 0
    # How many axes the part before an Ellipsis covers; often all, and then the Ellipsis stands anywhere and covers none.
    axes = len(shape) if rng.random() < 0.5 else int(rng.integers(0, len(shape) + 1))
    common = [(), (1,), (3,), (2, 3), (2, 1), (0,)][int(rng.integers(6))]  # the shape of all index arrays
    masks = 0
    while axis < axes:
        n, choice = shape[axis], rng.random()
        if choice < 0.15 and sum(item is None for item in key) < 2:  # a tensor has at most 8 axes
            key.append(None)
            continue
        if arrays and choice < 0.45:
            covered = min(int(rng.integers(1, 3)), axes - axis)
            if choice < 0.25 and not masks and common in ((), (1,)):
                # A mask broadcasts with other arrays only where it has one element or they do.
                key.append(rng.random(shape[axis : axis + covered]) < 0.5)
                masks, axis = 1, axis + covered
                continue
            if n > 0 or 0 in common:
                index = rng.integers(-n, n, common) if n else np.zeros(common, np.int64)
                key.append(np.asarray(index).astype(rng.choice(["int64", "int32"])))
                axis += 1
                continue
        if choice > 0.75 and n > 0:
            key.append(int(rng.integers(-n, n)))
        else:
            key.append(random_slice(rng, n))
        axis += 1
    if rng.random() < (0.8 if axis == len(shape) else 0.4):
        left = len(shape) - axis
        places = range(len(key) + 1) if left == 0 else [len(key)]
        between = [i for i in places[1:-1] if isinstance(key[i - 1], np.ndarray) and isinstance(key[i], np.ndarray)]
        key.insert(int(rng.choice(between or places)), Ellipsis)
    return tuple(key) if len(key) != 1 or rng.random() < 0.5 else key[0]


def as_tensors(key):
    """The same index with tensors in place of NumPy's arrays."""
    items = key if isinstance(key, tuple) else (key,)
    items = tuple(smelt.tensor(i) if isinstance(i, np.ndarray) else i for i in items)
    return items if isinstance(key, tuple) else items[0]


def numbered(shape, dtype=np.float32):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def has_repeats(a, key):
    return np.unique(a[key]).size != a[key].size


@SETTINGS
@given(SHAPES, SEEDS, st.booleans())
def test_reading(shape, seed, arrays):
    rng = np.random.default_rng(seed)
    a = numbered(shape)
    key = random_index(rng, shape, arrays)
    expected = a[key]
    for given_key in (key, as_tensors(key)):
        got = smelt.from_numpy(a)[given_key]
        assert isinstance(got, smelt.Tensor) and got.dtype == "float32"
        np.testing.assert_array_equal(got.numpy(), expected, err_msg=f"shape {shape}, index {given_key}")
        assert got.shape == expected.shape, f"shape {shape}, index {given_key}"
    if a.ndim >= 2:
        np.testing.assert_array_equal(smelt.from_numpy(a).swapaxes(-1, -2)[...].numpy(), a.swapaxes(-1, -2))


@SETTINGS
@given(SHAPES, SEEDS, st.booleans())
def test_assignment(shape, seed, arrays):
    rng = np.random.default_rng(seed)
    a = numbered(shape)
    key = random_index(rng, shape, arrays)
    part = a[key].shape
    # A value that broadcasts: a number, the whole shape, or some axes of extent 1 or missing in front.
    value = rng.integers(-99, -1, part[int(rng.integers(0, len(part) + 1)) :]).astype(np.float32)
    if value.ndim and value.size and rng.random() < 0.3:
        value = value[:1]
    x = smelt.tensor(a)
    assert not x._same_memory(smelt.from_numpy(a))
    a[key] = value  # with repeated indices NumPy, too, lets the last one win
    for given_key, given_value in ((key, smelt.tensor(value)), (as_tensors(key), value)):
        y = x.copy()
        y[given_key] = given_value
        np.testing.assert_array_equal(y.numpy(), a, err_msg=f"shape {shape}, index {given_key}")
    if value.ndim == 0:
        x[key] = float(value)
        np.testing.assert_array_equal(x.numpy(), a)


@SETTINGS
@given(SHAPES, SEEDS, st.booleans())
def test_gradient(shape, seed, arrays):
    """The gradient of x[key] * w is w added up at its positions: integers, so every order gives the same float32."""
    rng = np.random.default_rng(seed)
    key = random_index(rng, shape, arrays)
    positions = numbered(shape, np.int64)[key]
    w = rng.integers(-8, 9, positions.shape).astype(np.float32)
    expected = np.zeros(int(np.prod(shape)), np.float32)
    np.add.at(expected, positions.reshape(-1), w.reshape(-1))
    x = smelt.zeros(shape).requires_grad_()
    y = x[as_tensors(key)]
    assert y.requires_grad
    (y * smelt.tensor(w)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected.reshape(shape), err_msg=f"shape {shape}, index {key}")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "int64", "int32", "uint8", "bool"])
def test_every_dtype_is_indexed(dtype):
    x = smelt.arange(12).reshape(3, 4).to(dtype)
    a = x.float().numpy()
    for key in [1, (slice(None), 2), (slice(None, None, -2), slice(1, 3)), np.array([2, 0, 2]), a > 5, (None, ..., 1)]:
        got = x[key]
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.float().numpy(), a[key])
        y, b = x.copy(), a.copy()
        y[key], b[key] = 1, 1
        np.testing.assert_array_equal(y.float().numpy(), b)


@pytest.mark.parametrize(
    "key",
    [
        [2, 0],
        [-1],
        [],
        ([0, 1], [2, 0]),
        ([[0], [2]], [1, 3]),
        [True, False, True],
        (slice(None), [True, False, False, True]),
        (np.int64(1), slice(None)),
        (np.uint8(2), [1]),
        True,
        False,
        np.bool_(True),
        (np.array([0, 1], np.uint8), np.array([1, 1], np.int16)),
        (0, [1, 2]),
        ([1, 2], 0),
        (np.array([1, 2]), None, np.array([0, 3])),
        (np.array([[True] * 4, [False] * 4, [True, False] * 2]),),
        (slice(0, 0), [1]),
        (np.array(2), slice(1, 3)),
        (),
        ...,
        None,
    ],
    ids=str,
)
def test_lists_numbers_and_masks_as_numpy_takes_them(key):
    a = numbered((3, 4))
    x = smelt.tensor(a)
    got = x[key]
    np.testing.assert_array_equal(got.numpy(), a[key])
    assert got.shape == a[key].shape
    a[key] = -1
    x[key] = -1
    np.testing.assert_array_equal(x.numpy(), a)


def test_tensors_of_shape_nothing_are_indices():
    x = smelt.tensor([[1, 2], [3, 4]])
    assert x[smelt.tensor(1)].tolist() == [3, 4] and x[smelt.tensor(0), smelt.tensor(-1)].item() == 2
    assert x[smelt.argmax(smelt.tensor([0, 5]))].tolist() == [3, 4]
    assert x[smelt.tensor(-2, dtype="int32")].tolist() == [1, 2]


def test_arrays_apart_go_to_the_front():
    a = numbered((2, 3, 4, 5))
    i, j = np.array([0, 1, 1]), np.array([2, 0, 1])
    for key in [(i, slice(None), j), (slice(None), i, slice(None), j), (i, slice(None), 2), (slice(None), i, j)]:
        got = smelt.from_numpy(a)[key]
        assert got.shape == a[key].shape
        np.testing.assert_array_equal(got.numpy(), a[key])


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), slice(None), [0, 1, 0], ..., [1, 0, 1]),
        (slice(None), slice(None), 0, ..., [1, 0, 1]),
        (slice(None), slice(None), [1, 0], ..., 1),
        (None, 0, [0], ..., 1, [1, 0]),
        (slice(None), slice(None), ..., [0, 1, 0], [1, 0, 1]),
        (slice(None), slice(None), [0, 1, 0], [1, 0, 1], ...),
        (slice(None), np.array([[True, False]]), ..., [1, 0, 1]),
    ],
    ids=str,
)
def test_an_ellipsis_over_no_axis_separates_arrays(key):
    a = numbered((3, 1, 2, 2))
    x = smelt.tensor(a)
    assert x[key].shape == a[key].shape
    np.testing.assert_array_equal(x[key].numpy(), a[key])
    value = -numbered(a[key].shape) - 1
    a[key], x[key] = value, value
    np.testing.assert_array_equal(x.numpy(), a)


def test_the_last_of_repeated_indices_wins():
    x = smelt.zeros(3)
    x[[1, 1, 0, 1]] = [1.0, 2.0, 3.0, 4.0]
    assert x.tolist() == [3, 4, 0]
    n = 100_000  # more than one chunk of work
    y = smelt.zeros(2)
    y[smelt.arange(n) % 2] = smelt.arange(n).float()
    assert y.tolist() == [n - 2, n - 1]


def test_assignment_from_itself():
    x = smelt.arange(6)
    x[[0, 1, 2]] = x[[2, 1, 0]]
    assert x.tolist() == [2, 1, 0, 3, 4, 5]
    x[smelt.tensor([5, 4, 3, 2, 1, 0])] = x
    assert x.tolist() == [5, 4, 3, 0, 1, 2]
    x[::-1] = x
    assert x.tolist() == [2, 1, 0, 3, 4, 5]


@pytest.mark.parametrize(
    "key, text",
    [
        (3, r"must be in \[-3, 3\) for axis 0 of shape \(3, 4\), got 3"),
        (-4, "got -4"),
        ((0, 4), r"\[-4, 4\) for axis 1 .* got 4"),
        ((..., -5), "for axis 1 .* got -5"),
        ([0, 3], r"must be in \[-3, 3\), got 3"),
        (np.array([[0, 1], [-7, 2]]), "got -7"),
        ((slice(None), [0, 9]), r"must be in \[-4, 4\), got 9"),
        (smelt.tensor([2, 5]), "got 5"),
        ((0, 0, 0), r"at most 2 indices for shape \(3, 4\), got 3"),
        ((..., [0], 0, 0), r"at most 2 indices for shape \(3, 4\), got 3"),
        ((..., ...), "only one"),
        ((..., [0], ...), "only one"),
        (np.ones((3, 3), bool), r"mask must have shape \(3, 4\) there, got \(3, 3\)"),
        (np.ones(4, bool), r"mask must have shape \(3,\) there, got \(4,\)"),
        ((0, np.ones(3, bool)), r"mask must have shape \(4,\) there, got \(3,\)"),
        ([0.0, 1.0], "integers or bool, got float"),
        (1.0, "float"),
        (smelt.tensor([1.0]), "integers or bool, got float32"),
        ("a", "str"),
        (([0, 1], [0, 1, 2]), r"\(2,\) and \(3,\)"),
    ],
    ids=str,
)
def test_errors_have_values(key, text):
    """Out of range is an IndexError with the value, for reading and writing alike, and nothing is written."""
    x = smelt.zeros(3, 4)
    for call in (lambda: x[key], lambda: x.__setitem__(key, 1)):
        with pytest.raises(IndexError, match=text) as caught:
            call()
        assert str(caught.value).startswith("index: ")
    assert not x.any()


def test_errors_of_values():
    x = smelt.zeros(3, 4)
    for key in (slice(None, 2), [0, 1], smelt.tensor([True, True, False])):
        with pytest.raises(ValueError, match=r"\(3,\) and \(2, 4\)"):
            x[key] = [1, 2, 3]
    with pytest.raises(TypeError, match="str"):
        x[0] = "a"
    with pytest.raises(ValueError, match="slice step"):
        x[::0]
    assert not x.any()


def test_a_scalar_has_no_axis_to_index():
    x = smelt.tensor(5)
    assert x[...].item() == 5 and x[()].item() == 5 and x[None].shape == (1,) and x[None, ..., None].shape == (1, 1)
    with pytest.raises(IndexError, match=r"at most 0 indices for shape \(\), got 1"):
        x[0]
    x[...] = 6
    assert x.item() == 6


@pytest.mark.parametrize("index", [-1, 3, -3])
def test_functions_of_indices_refuse_what_is_out_of_range(index):
    """take, gather and their relatives take [0, n) alone: nothing counts from the end."""
    x, at = smelt.ones(3, 3), smelt.tensor([0, index])
    for call in (
        lambda: smelt.take(x, at),
        lambda: smelt.take(x, at, 1),
        lambda: smelt.gather(x, smelt.tensor([[0, index, 0]] * 3), 1),
        lambda: smelt.scatter_add(x, smelt.tensor([[0, index, 0]] * 3), x, 0),
        lambda: smelt.embedding(at, x),
        lambda: smelt.one_hot(at, 3),
    ):
        with pytest.raises(IndexError, match=rf"must be in \[0, 3\), got {index} at position 1"):
            call()


def test_indices_of_functions_must_be_integers():
    x = smelt.ones(3)
    for index in (smelt.ones(2), smelt.tensor([True])):
        with pytest.raises(TypeError, match="integers"):
            smelt.take(x, index)


def test_nonzero_indexes():
    a = numbered((3, 4)) % 3
    found = smelt.nonzero(smelt.from_numpy(a))
    for got, expected in zip(found, np.nonzero(a), strict=True):
        assert got.dtype == "int64"
        np.testing.assert_array_equal(got.numpy(), expected)
    np.testing.assert_array_equal(smelt.from_numpy(a)[found].numpy(), a[np.nonzero(a)])


def test_no_memory_is_lost_to_failing_indices():
    x = smelt.zeros(100, 100)
    gc.collect()  # tracebacks of other tests hold tensors
    before = smelt.memory_stats()["in_use"]
    for _ in range(20):
        with pytest.raises(IndexError):
            x[smelt.arange(101)]
        with pytest.raises(IndexError):
            x[smelt.ones(7, dtype="bool")] = 1
    gc.collect()
    assert smelt.memory_stats()["in_use"] == before
