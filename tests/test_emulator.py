"""The emulator of CUDA kernels: it finds planted mistakes in every order of threads, and lets correct kernels pass."""

import ctypes
import os
import re
from pathlib import Path

import numpy as np
import pytest

import smelt
from smelt import _core

pytestmark = pytest.mark.skipif(
    bool(_core.why_unavailable("emu")), reason="needs a build with -DSMELT_EMU=ON (device emu)"
)

PLANTED = {
    "missing_sync": "shared memory",
    "missing_wait": "shared memory",
    "divergent_barrier": "sync_threads",
    "shuffle_mask": "shuffle_xor|mask",
    "read_out_of_bounds": "out of bounds",
    "write_out_of_bounds": "out of bounds",
    "uninitialised_shared": "no thread has written",
    "mbarrier_parity": "mbarrier_wait|shared memory",
    "misaligned": "misaligned",
}


@pytest.fixture(scope="module")
def library():
    lib = ctypes.CDLL(str(Path(_core.__file__).resolve().parent / "_emu.so"))
    lib.smelt_emu_planted_name.restype = ctypes.c_char_p
    lib.smelt_emu_planted.restype = ctypes.c_char_p
    lib.smelt_emu_planted.argtypes = [ctypes.c_int, ctypes.c_bool, ctypes.c_uint64]
    return lib


def test_every_planted_mistake_is_listed(library):
    names = [library.smelt_emu_planted_name(i) for i in range(len(PLANTED) + 1)]
    assert [n.decode() for n in names[:-1]] == list(PLANTED)
    assert names[-1] is None


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="needs a build without AddressSanitizer")
@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("name", PLANTED)
def test_planted_mistakes(library, name, order):
    which = list(PLANTED).index(name)
    assert library.smelt_emu_planted(which, False, order) is None
    error = library.smelt_emu_planted(which, True, order)
    assert error is not None, f"{name} was not found in order {order}"
    assert re.search(PLANTED[name], error.decode()), error.decode()
    assert "thread (" in error.decode(), error.decode()
    assert library.smelt_emu_planted(which, False, order) is None  # nothing is left of it


def test_values_come_back():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    t = smelt.tensor(x, device="emu")
    assert t.device == "emu"
    np.testing.assert_array_equal((t + 1).numpy(), x + 1)
    np.testing.assert_array_equal(t.T.to("cpu").numpy(), x.T)


def test_devices_do_not_mix():
    with pytest.raises(ValueError, match="all tensors must be on one device, got cpu and emu"):
        smelt.zeros(2) + smelt.zeros(2).to("emu")
    with pytest.raises(ValueError, match="all tensors must be on one device, got emu and emu:1"):
        smelt.zeros(2).to("emu") + smelt.zeros(2).to("emu:1")
    with pytest.raises(RuntimeError, match="emu: device index must be below 2, got 2"):
        smelt.zeros(2).to("emu:2")


def test_out_of_memory_leaves_everything_usable():
    t = smelt.zeros(1000).to("emu")
    with pytest.raises(MemoryError, match=r"cannot allocate \d+ bytes on emu: \d+ of 4294967296 are free"):
        smelt._core.empty([1 << 30, 2], "float32", "emu")
    np.testing.assert_array_equal((t + 1).numpy(), np.ones(1000, np.float32))


def test_memory_is_counted():
    before = smelt.runtime.memory_stats("emu")["in_use"]
    t = smelt.zeros(1000).to("emu")
    assert smelt.runtime.memory_stats("emu")["in_use"] >= before + 4000
    del t
    assert smelt.runtime.memory_stats("emu")["in_use"] == before


def test_a_wrong_index_is_an_error_when_the_host_waits():
    weight = smelt.randn(5, 3).to("emu")
    index = smelt.tensor([0, 4, 7, 9]).to("emu")
    y = smelt.take(weight, index, 0)
    with pytest.raises(IndexError, match=r"take: index must be in \[0, 5\), got 7 at position 2"):
        y.numpy()
    np.testing.assert_array_equal(y.numpy()[:2], weight.numpy()[[0, 4]])  # the error is reported once


def test_dropout_masks_are_those_of_the_cpu():
    x = smelt.randn(1000)
    masks = []
    for device in ("cpu", "emu"):
        smelt.manual_seed(7)
        masks.append([smelt.dropout(x.to(device), 0.3).numpy() for _ in range(3)])
    np.testing.assert_array_equal(masks[0], masks[1])
