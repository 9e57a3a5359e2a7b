"""smelt.cuda: on every GPU that is here, and on the emulator, which stands in for one; what it says where there is none."""

import os

import numpy as np
import pytest

import smelt
from smelt import _core, cuda
from tests.conftest import devices

HERE = devices()
needs_device = pytest.mark.skipif(not HERE, reason="needs a GPU, or a build with -DSMELT_EMU=ON (device emu)")


@pytest.fixture(params=HERE)
def device(request):
    return request.param


def test_availability_and_count_agree():
    assert cuda.is_available() == (cuda.device_count() > 0) == (not _core.why_unavailable("cuda"))


@pytest.mark.skipif(cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("call", [cuda.device_info, cuda.synchronize, cuda.memory_stats, cuda.empty_cache, cuda.Event])
def test_without_a_gpu_each_call_says_why(call):
    with pytest.raises(RuntimeError, match=r"cuda: no such device: .*(CUDA|NVIDIA|GPU)"):
        call()


@pytest.mark.parametrize("call", [cuda.device_info, cuda.synchronize, cuda.Event])
@pytest.mark.parametrize("name", ["cpu", "gpu", "float32", 3, None])
def test_a_name_of_no_gpu_is_refused(call, name):
    with pytest.raises(ValueError, match="must be a GPU"):
        call(name)


def test_info(device):
    info = cuda.device_info(device)
    assert set(info) == {"name", "compute_capability", "multiprocessors", "memory", "free_memory"}
    assert info["compute_capability"] >= (8, 0)
    assert 0 < info["free_memory"] <= info["memory"]


def test_synchronize_raises_what_a_kernel_found(device):
    rows = smelt.ones(3, 2, device=device)
    smelt.take(rows, smelt.tensor(np.array([0, 7]), device=device), 0)
    with pytest.raises(IndexError, match="got 7 at position 1"):
        cuda.synchronize(device)
    cuda.synchronize(device)  # once


def test_memory_is_counted(device):
    before = cuda.memory_stats(device)["in_use"]
    cuda.reset_peak_memory(device)
    x = smelt.zeros(1000, device=device)
    stats = cuda.memory_stats(device)
    assert stats["in_use"] >= before + x.nbytes
    assert stats["peak_in_use"] == stats["in_use"]
    del x
    cuda.empty_cache(device)
    assert cuda.memory_stats(device)["in_use"] == before
    assert cuda.memory_stats(device)["cached"] == 0


@pytest.mark.parametrize("name", ["cpu", *HERE])
def test_a_limit_holds_and_leaves_everything_usable(name):
    smelt.empty_cache(name)
    held = smelt.zeros(1 << 16, device=name)
    try:
        smelt.set_memory_limit(smelt.memory_stats(name)["in_use"] + (1 << 20), name)
        limit = smelt.memory_stats(name)["limit"]
        with pytest.raises(
            MemoryError, match=rf"cannot allocate {8 << 20} bytes on {name}: the limit is {limit} bytes, tensors hold"
        ):
            smelt.zeros(2 << 20, device=name)
        # What the cache holds is given back before a request fails.
        for size in (1 << 17, 3 << 16, 1 << 17):
            assert smelt.zeros(size, device=name).sum().item() == 0
        assert smelt.memory_stats(name)["in_use"] + smelt.memory_stats(name)["cached"] <= limit
        assert held.sum().item() == 0
    finally:
        smelt.set_memory_limit(None, name)
    assert smelt.memory_stats(name)["limit"] == 0
    assert smelt.zeros(2 << 20, device=name).shape == (2 << 20,)


@pytest.mark.parametrize("limit", [0, -1, 1 << 63])
def test_a_limit_must_be_positive(limit):
    with pytest.raises(ValueError, match=f"must be a positive number of bytes, got {limit}"):
        smelt.set_memory_limit(limit)
    with pytest.raises(TypeError, match="whole number"):
        smelt.set_memory_limit(1.5)


def test_events_measure_in_order(device):
    begin, end = cuda.Event(device), cuda.Event(device)
    assert begin.is_done()
    begin.synchronize()
    begin.record()
    x = smelt.ones(64, 64, device=device)
    y = x @ x
    end.record()
    seconds = begin.seconds_until(end)
    assert 0 < seconds < 60
    assert begin.is_done() and end.is_done()
    assert y.numpy()[0, 0] == 64


def test_events_refuse_what_has_no_answer(device):
    begin, end = cuda.Event(device), cuda.Event(device)
    with pytest.raises(ValueError, match="both must have been recorded"):
        begin.seconds_until(end)
    begin.record()
    with pytest.raises(ValueError, match="both must have been recorded"):
        begin.seconds_until(end)


@needs_device
def test_events_of_two_devices_are_no_pair():
    if "emu" not in HERE:
        pytest.skip("needs two devices")
    one, other = cuda.Event("emu"), cuda.Event("emu:1")
    one.record()
    other.record()
    with pytest.raises(ValueError, match="must be of one device, got emu and emu:1"):
        one.seconds_until(other)


def test_many_events_are_given_back(device):
    for _ in range(2000):
        cuda.Event(device).record()


@pytest.mark.skipif(not cuda.is_available(), reason="needs a GPU")
def test_a_forked_child_gets_a_sentence():
    smelt.ones(1, device="cuda")
    child = os.fork()
    if child == 0:
        try:
            smelt.ones(1, device="cuda")
        except RuntimeError as error:
            os._exit(0 if "forked" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
