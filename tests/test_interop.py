"""NumPy and DLPack both ways: what is shared, what is copied, what is refused, and who keeps the memory alive."""

import gc
import sys
import weakref

import numpy as np
import pytest

import smelt

SHARED = ["float32", "float64", "float16", "int64", "int32", "uint8", "bool"]


class Watched(np.ndarray):
    """An array that can be watched for its end."""


def watched(shape, dtype=np.float32):
    return np.zeros(shape, dtype).view(Watched)


def misaligned():
    return np.frombuffer(bytearray(25), np.uint8)[1:].view(np.float64)


def read_only():
    a = np.arange(3.0)
    a.flags.writeable = False
    return a


BASE = np.arange(12.0).reshape(3, 4)
CANNOT_SHARE = {
    "transposed": (BASE.T, "row-major"),
    "column-major": (np.asfortranarray(BASE), "row-major"),
    "strided": (BASE[:, ::2], "row-major"),
    "reversed": (BASE[::-1], "row-major"),
    "broadcast": (np.broadcast_to(np.arange(4.0), (3, 4)), "row-major|writable|read-only"),
    "read-only": (read_only(), "writable|read-only"),
    "other byte order": (BASE.astype(BASE.dtype.newbyteorder("S")), "byte order"),
    "misaligned": (misaligned(), "aligned"),
    "int16": (np.arange(3, dtype=np.int16), "dtype"),
    "other byte order int16": (np.arange(3, dtype=np.dtype("i2").newbyteorder("S")), "dtype|byte order"),
}


@pytest.mark.parametrize("dtype", SHARED)
@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (2, 3, 4)])
@pytest.mark.parametrize("take", [smelt.from_numpy, smelt.from_dlpack])
@pytest.mark.parametrize("copy", [None, False])
def test_arrays_are_shared(dtype, shape, take, copy):
    a = np.zeros(shape, dtype)
    x = take(a, copy=copy)
    assert x.dtype == dtype and x.shape == shape
    a[...] = 1
    assert x.all()
    x[...] = 0
    assert not a.any()
    y = take(a, copy=True)
    a[...] = 1
    assert not y.any() or y.size == 0


@pytest.mark.parametrize("name", CANNOT_SHARE)
def test_arrays_that_cannot_be_shared(name):
    a, why = CANNOT_SHARE[name]
    x = smelt.from_numpy(a)
    np.testing.assert_array_equal(x.numpy(), a)
    assert x.numpy().flags.c_contiguous and not np.shares_memory(x.numpy(), a)
    np.testing.assert_array_equal(smelt.from_numpy(a, copy=True).numpy(), a)
    np.testing.assert_array_equal(smelt.tensor(a).numpy(), a)
    before = a.copy()
    x[...] = 77
    np.testing.assert_array_equal(a, before)
    with pytest.raises(ValueError, match=f"from_numpy: .*({why}).*copy=True"):
        smelt.from_numpy(a, copy=False)


@pytest.mark.parametrize("name", ["transposed", "column-major", "strided", "reversed", "broadcast", "read-only"])
def test_dlpack_that_cannot_be_shared(name):
    a, why = CANNOT_SHARE[name]
    if not a.flags.writeable and np.lib.NumpyVersion(np.__version__) < "2.1.0":
        return  # such a NumPy exports no read-only memory
    x = smelt.from_dlpack(a)
    np.testing.assert_array_equal(x.numpy(), a)
    assert not np.shares_memory(x.numpy(), a)
    np.testing.assert_array_equal(smelt.from_dlpack(a, copy=True).numpy(), a)
    with pytest.raises(BufferError, match=f"from_dlpack: .*({why}).*copy=True"):
        smelt.from_dlpack(a, copy=False)


def test_gaps_that_hold_no_element_do_not_prevent_sharing():
    """A slice of one row, or of whole rows, is row-major whatever the strides of extents of 1 are."""
    a = np.arange(12.0).reshape(3, 4)
    for part in (a[1:2, 1:3], a[1:], a[:, None][2], a[0]):
        for take in (smelt.from_numpy, smelt.from_dlpack):
            x = take(part, copy=False)
            assert x.tolist() == part.tolist() and x._address() == part.ctypes.data


@pytest.mark.parametrize("dtype", ["uint64", "complex64", "complex128", "U3", "S2", "object", "datetime64[s]"])
def test_dtypes_without_a_counterpart(dtype):
    with pytest.raises(TypeError, match=r"from_numpy: dtype must be one of float32, .* got"):
        smelt.from_numpy(np.zeros(2, dtype))


def test_other_refusals():
    with pytest.raises(ValueError, match="at most 8 axes"):
        smelt.from_numpy(np.zeros((1,) * 9))
    for bad in (3, [1.0], None, "a"):
        with pytest.raises(TypeError, match=f"from_dlpack: needs an object with __dlpack__, got {type(bad).__name__}"):
            smelt.from_dlpack(bad)
    for dtype in (np.complex64, np.int16):
        with pytest.raises(BufferError, match="from_dlpack: dtype is not supported, got code"):
            smelt.from_dlpack(np.zeros(2, dtype))


# ---------------------------------------------------------------------------------------------------------- to NumPy


@pytest.mark.parametrize("dtype", SHARED)
def test_numpy_shares(dtype):
    x = smelt.zeros(2, 3, dtype=dtype)
    arrays = [x.numpy(), np.asarray(x), x.detach().numpy(), np.from_dlpack(x), x.T.numpy().T, x[1:].numpy()]
    x[...] = 1
    for a in arrays:
        assert a.dtype == dtype and a.all() and a.flags.writeable
        a[...] = 0
        assert not x[1:].any()
        x[...] = 1
    assert x.T.numpy().tolist() == x.numpy().T.tolist()


def test_numpy_copies_on_the_tape_and_of_bfloat16():
    x = smelt.tensor([1.0, 2.0], requires_grad=True)
    for t in (x, x * 1, x.T, x.reshape(2, 1)):
        a = t.numpy()
        a[...] = 9
        assert x.tolist() == [1, 2] and t.reshape(2).tolist() == [1, 2]
    b = smelt.tensor([1.5, -2.5], dtype="bfloat16")
    a = b.numpy()
    assert a.dtype == np.float32 and a.tolist() == [1.5, -2.5]
    a[0] = 9
    assert b.tolist() == [1.5, -2.5]


def test_the_array_protocol():
    x = smelt.tensor([[1.0, 2.0]])
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    made = np.array(x)
    made[...] = 7
    assert x.tolist() == [[1, 2]], "np.array copies"
    assert np.stack([x, x]).shape == (2, 1, 2) and np.array_equal(x, x) and np.allclose(x, [[1, 2]])
    assert np.concatenate([np.zeros((1, 2)), x]).tolist() == [[0, 0], [1, 2]]
    a = np.zeros(2)
    a[:] = x[0]
    assert a.tolist() == [1, 2] and a[smelt.tensor(1)] == 2


def test_copy_of_the_array_protocol():
    """copy=False of __array__ never copies: where it would have to, it raises, as NumPy 2 asks."""
    x = smelt.tensor([1.0, 2.0])
    assert np.shares_memory(x.__array__(copy=False), x.numpy())
    assert not np.shares_memory(x.__array__(copy=True), x.numpy())
    assert not np.shares_memory(x.__array__(np.float64, copy=True), x.numpy())
    for t, dtype in [(x, np.float64), (x.bfloat16(), None), (x.copy().requires_grad_(), None)]:
        with pytest.raises(ValueError, match="copy"):
            t.__array__(dtype, copy=False)


# ------------------------------------------------------------------------------------------------------------- DLPack


@pytest.mark.parametrize("dtype", [*SHARED, "bfloat16"])
@pytest.mark.parametrize("version", [None, (1, 0), (2, 0), (0, 8)])
def test_dlpack_there_and_back(dtype, version):
    class Exporter:
        """Hands out a capsule of one version, as some other library would."""

        def __init__(self, x):
            self.x = x

        def __dlpack__(self, **_):
            return self.x.__dlpack__(max_version=version)

        def __dlpack_device__(self):
            return self.x.__dlpack_device__()

    for shape in [(), (5,), (2, 0), (2, 3)]:
        x = smelt.ones(shape, dtype=dtype)
        y = smelt.from_dlpack(Exporter(x))
        assert y.dtype == dtype and y.shape == shape and y._same_memory(x)
        assert smelt.from_dlpack(Exporter(x), copy=True).shape == shape
        assert x.size == 0 or not smelt.from_dlpack(Exporter(x), copy=True)._same_memory(x)
    t = smelt.arange(6).reshape(2, 3).to(dtype).T
    assert smelt.from_dlpack(Exporter(t)).tolist() == t.tolist(), "the transposition is carried out"


def test_dlpack_of_an_exporter_from_before_version_1():
    class Old:
        def __init__(self, x):
            self.x = x

        def __dlpack__(self, stream=None):
            return self.x.__dlpack__()

    x = smelt.ones(3)
    assert smelt.from_dlpack(Old(x))._same_memory(x)


def test_dlpack_requests():
    x = smelt.ones(3)
    assert x.__dlpack_device__() == (1, 0)
    assert not smelt.from_dlpack(type("E", (), {"__dlpack__": lambda s, **_: x.__dlpack__(copy=True)})())._same_memory(
        x
    )
    with pytest.raises(ValueError, match="has no stream, got 1"):
        x.__dlpack__(stream=1)
    with pytest.raises(BufferError, match="CPU"):
        x.__dlpack__(dl_device=(2, 0))
    for t in (x.copy().requires_grad_(), x.copy().requires_grad_() * 2):
        with pytest.raises(BufferError, match=r"requires a gradient .*x.detach\(\)"):
            np.from_dlpack(t)
    w = x.copy().requires_grad_()
    assert np.shares_memory(np.from_dlpack(w.detach()), w.detach().numpy())


def test_a_capsule_is_taken_once():
    x = smelt.ones(3)
    capsule = x.__dlpack__(max_version=(1, 0))
    exporter = type("E", (), {"__dlpack__": lambda self, **_: capsule})()
    assert smelt.from_dlpack(exporter)._same_memory(x)
    with pytest.raises((TypeError, ValueError, BufferError)):
        smelt.from_dlpack(exporter)


# --------------------------------------------------------------------------------------------------------- lifetimes


@pytest.mark.parametrize("take", [smelt.from_numpy, smelt.from_dlpack])
def test_a_tensor_keeps_the_array_and_lets_it_go(take):
    gc.collect()
    a = watched(1000)
    gone = weakref.ref(a)
    x = take(a)
    view = x[10:20]
    a[15] = 5
    del a, x
    gc.collect()
    assert view[5].item() == 5
    if take is smelt.from_numpy:
        assert gone() is not None
    del view
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("give", [lambda x: x.numpy(), np.asarray, np.from_dlpack, lambda x: x.__dlpack__()])
def test_what_was_given_out_keeps_the_memory(give):
    start = smelt.memory_stats()["in_use"]
    x = smelt.ones(1000)
    given = give(x)
    del x
    assert smelt.memory_stats()["in_use"] > start
    if isinstance(given, np.ndarray):
        part = given[5:10]
        del given
        assert part.tolist() == [1] * 5 and smelt.memory_stats()["in_use"] > start
        del part
    else:
        del given  # a capsule that nobody took
    assert smelt.memory_stats()["in_use"] == start


def test_reference_counts_stay():
    a = np.zeros(4, np.float32)
    x = smelt.ones(4)
    before = sys.getrefcount(a), sys.getrefcount(x)
    for _ in range(10):
        smelt.from_numpy(a) + smelt.from_dlpack(a)
        x.numpy(), np.from_dlpack(x), x.__dlpack__()
        with pytest.raises(BufferError):
            smelt.from_dlpack(a[::2], copy=False)
        with pytest.raises(ValueError):
            smelt.from_numpy(a[::2], copy=False)
    assert (sys.getrefcount(a), sys.getrefcount(x)) == before


def test_writes_through_numpy_are_seen_by_later_results():
    a = np.ones(3, np.float32)
    x = smelt.from_numpy(a)
    y = x + 1
    a += 1
    assert y.tolist() == [2, 2, 2] and (x + 1).tolist() == [3, 3, 3]
