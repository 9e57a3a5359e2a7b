"""smelt.cuda: on every GPU that is here, and on the emulator, which stands in for one; what it says where there is none."""

import os

import numpy as np
import pytest

import smelt
from smelt import _core, cuda, data, kernels, nn, optim
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


@pytest.mark.parametrize(
    "call",
    [
        cuda.device_info,
        cuda.synchronize,
        cuda.Event,
        cuda.memory_stats,
        cuda.empty_cache,
    ],
)
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


def test_indexing_does_not_wait(device):
    rows, places = smelt.ones(3, 2, device=device), smelt.tensor(np.array([-3, 2, 3]), device=device)
    rows[places]  # no error here: the host has not waited
    with pytest.raises(IndexError, match=r"index: positions must be in \[-3, 3\), got 3 at position 2"):
        cuda.synchronize(device)
    rows[places] = 0.0
    with pytest.raises(IndexError, match="got 3 at position 2"):
        rows.numpy()
    cuda.synchronize(device)


def test_lists_and_numpy_arrays_index_and_are_assigned_anywhere(device):
    def run(device):
        x = smelt.zeros(4, 5, device=device)
        x[1] = 2.0
        x[[0, 3], 1:3] = 7
        x[x > 6] = -1.0
        x[::2, -1] = np.arange(2.0)
        x[np.array([True, False, False, True])] = [[1.0], [3.0]]
        x[2, :2] = [4.0, 5.0]
        return [x, x[[0, 1]], x[np.array([True, False, True, False])], x[..., [1, 1], None]]

    for there, here in zip(run(device), run("cpu")):
        assert there.device == device
        assert (there.numpy() == here.numpy()).all()


def test_memory_is_counted(device):
    before = cuda.memory_stats(device)["in_use"]
    smelt.reset_peak_memory(device)
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


@pytest.mark.parametrize("name", ["cpu", *HERE])
def test_a_limit_below_what_is_in_use(name):
    smelt.empty_cache(name)
    held = smelt.zeros(1 << 24, device=name)  # 64 MiB
    try:
        smelt.set_memory_limit(1 << 20, name)
        assert held.shape == (1 << 24,)
        with pytest.raises(MemoryError, match="the limit is 1048576 bytes, tensors hold"):
            smelt.zeros(16, device=name)
        del held
        stats = smelt.memory_stats(name)
        assert stats["in_use"] + stats["cached"] <= max(1 << 20, stats["in_use"])
        with pytest.raises(MemoryError, match="the limit is 1048576 bytes"):
            smelt.zeros(1 << 24, device=name)
    finally:
        smelt.set_memory_limit(None, name)


def test_the_limit_is_blamed_for_what_it_refuses_alone():
    try:
        smelt.set_memory_limit(1 << 60)
        with pytest.raises(MemoryError) as error:
            smelt.zeros(1 << 48)
        assert "limit" not in str(error.value)
    finally:
        smelt.set_memory_limit(None)


def test_what_can_never_fit_leaves_the_cache():
    try:
        smelt.set_memory_limit(1 << 36)
        smelt.zeros(1 << 20)
        cached = smelt.memory_stats()["cached"]
        with pytest.raises(MemoryError, match="the limit is"):
            smelt.zeros(1 << 40)
        assert smelt.memory_stats()["cached"] == cached
    finally:
        smelt.set_memory_limit(None)


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
    with pytest.raises(TypeError, match="later must be an Event, got int"):
        begin.seconds_until(3)


@needs_device
def test_events_of_two_devices_are_no_pair():
    if "emu" not in HERE:
        pytest.skip("needs two devices")
    one, other = cuda.Event("emu"), cuda.Event("emu:1")
    one.record()
    other.record()
    with pytest.raises(ValueError, match="must be of one device, got emu and emu:1"):
        one.seconds_until(other)


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


# --------------------------------------------------------------------------------------------------------------- TF32


@pytest.fixture
def tf32():
    smelt.set_float32_matmul("tf32")
    yield
    smelt.set_float32_matmul("exact")


def to_tf32(x):
    """The nearest number with 10 bits of mantissa, ties away from 0, as cvt.rna rounds."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def check_tf32(got, expected, exact, depth):
    """`expected` is the product of rounded operands in float64, `exact` that of the operands' magnitudes."""
    error = np.abs(got - expected)
    assert (error <= 2.0**-23 * (depth + 4) * exact).all(), error.max()


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize(
    "m, n, k", [(1, 1, 1), (16, 8, 8), (33, 20, 12), (64, 48, 16), (130, 7, 37), (5, 140, 1100), (128, 128, 64)]
)
def test_products_in_tf32(device, tf32, m, n, k, transpose_a, transpose_b):
    rng = np.random.default_rng(m * n + k)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((m, k), (k, n)))
    left = smelt.tensor(a.T.copy() if transpose_a else a, device=device)
    right = smelt.tensor(b.T.copy() if transpose_b else b, device=device)
    got = ((left.T if transpose_a else left) @ (right.T if transpose_b else right)).numpy()
    rounded = to_tf32(a).astype(np.float64) @ to_tf32(b).astype(np.float64)
    check_tf32(got, rounded, np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64), k)
    if k > 8:
        assert (got != (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)).any()


@pytest.mark.parametrize("channels, outputs, groups", [(8, 12, 1), (3, 5, 1), (8, 16, 4)])
def test_convolutions_in_tf32(device, tf32, channels, outputs, groups):
    rng = np.random.default_rng(channels)
    x = rng.normal(size=(2, 6, 5, channels)).astype(np.float32)
    w = rng.normal(size=(outputs, 3, 3, channels // groups)).astype(np.float32)
    grad = rng.normal(size=(2, 6, 5, outputs)).astype(np.float32)

    def run(x, w, grad, device, dtype):
        tensors = [smelt.tensor(v.astype(dtype), device=device, requires_grad=True) for v in (x, w)]
        y = smelt.conv2d(*tensors, padding=1, groups=groups)
        y.backward(smelt.tensor(grad.astype(dtype), device=device))
        return [v.numpy() for v in (y.detach(), *(t.grad for t in tensors))]

    got = run(x, w, grad, device, np.float32)
    rounded = run(to_tf32(x), to_tf32(w), to_tf32(grad), "cpu", np.float64)
    sizes = run(np.abs(x), np.abs(w), np.abs(grad), "cpu", np.float64)
    for mine, expected, size in zip(got, rounded, sizes):
        check_tf32(mine, expected, size, 9 * max(channels, outputs) + 60)


def test_float32_is_exact_unless_asked(device):
    assert smelt.get_float32_matmul() == "exact"
    a = np.full((16, 16), 1 + 2.0**-20, np.float32)
    one = smelt.tensor(a, device=device) @ smelt.tensor(np.eye(16, dtype=np.float32), device=device)
    assert (one.numpy() == a).all()


def test_a_mode_that_is_none():
    with pytest.raises(ValueError, match="must be 'exact' or 'tf32', got 'fast'"):
        smelt.set_float32_matmul("fast")


def test_the_cpu_stays_exact(tf32):
    a = np.full((16, 16), 1 + 2.0**-20, np.float32)
    assert ((smelt.tensor(a) @ smelt.tensor(np.eye(16, dtype=np.float32))).numpy() == a).all()


# --------------------------------------------------------------------------------------------------------- raw kernels


def test_raw_kernels_run_where_their_arrays_are(device):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 7)).astype(np.float32), rng.normal(size=(7, 3)).astype(np.float32)
    out = smelt.zeros(5, 3, device=device)
    left, right = smelt.tensor(a, device=device), smelt.tensor(b, device=device)
    result = kernels.gemm(left, right, out=out)
    assert result is out
    assert np.allclose(out.numpy(), a @ b, atol=1e-5)
    assert kernels.gemm(left, right).device == device
    names = kernels.impls("gemm", device)
    assert names and not set(names) & set(kernels.impls("gemm"))
    assert np.allclose(kernels.gemm(left, right, impl=names[0]).numpy(), a @ b, atol=1e-5)
    with pytest.raises(ValueError, match=f"impl must be one of {names[0]}"):
        kernels.gemm(left, right, impl="portable")


def test_raw_kernels_with_numbers_of_their_own(device):
    x = smelt.ones(40, device=device)
    y = kernels.dropout(x, 0.5, seed=3)
    assert (y.numpy() == kernels.dropout(np.ones(40, np.float32), 0.5, seed=3)).all()
    given = [np.linspace(-1, 1, 64, dtype=np.float32) + i for i in range(2)] + [
        np.zeros(64, np.float32) for _ in range(2)
    ]
    there = [smelt.tensor(v, device=device) for v in given]
    assert kernels.sum_squares(there[1]) == pytest.approx(float((given[1].astype(np.float64) ** 2).sum()))
    kernels.adam(*given, lr=0.1, step=1)
    kernels.adam(*there, lr=0.1, step=1)
    kernels.sgd(*given[:2], given[2], lr=0.1, momentum=0.9)
    kernels.sgd(*there[:2], there[2], lr=0.1, momentum=0.9)
    for mine, theirs in zip(there, given):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-6, atol=1e-7)
    norm, scale, skip = kernels.clip_scale(smelt.tensor(np.array([9.0, 16.0]), device=device), 1.0)
    assert (norm, scale, skip) == (5.0, 0.2, False)


def test_raw_kernels_find_wrong_indices_when_the_host_waits(device):
    x, index = smelt.ones(3, 4, device=device), smelt.tensor(np.array([0, 9]), device=device)
    kernels.take(x, index, 1)
    with pytest.raises(IndexError, match=r"take: index must be in \[0, 4\), got 9 at position 1"):
        cuda.synchronize(device)
    kernels.cross_entropy(x, smelt.tensor(np.array([0, 4, 1]), device=device))
    with pytest.raises(IndexError, match=r"cross_entropy: index must be in \[0, 4\), got 4 at position 1"):
        cuda.synchronize(device)


def test_raw_kernels_refuse_arrays_of_two_devices(device):
    x, y = smelt.ones(4, 4, device=device), np.ones((4, 4), np.float32)
    with pytest.raises(ValueError, match=f"gemm: b must be on {device} as what comes before it, got cpu"):
        kernels.gemm(x, y)
    with pytest.raises(ValueError, match=f"out must be on {device}|c must be on {device}"):
        kernels.gemm(x, x, out=y)


# ------------------------------------------------------------------------------------------------------------ training


def digits_losses(device, steps):
    smelt.manual_seed(0)
    train = smelt.datasets.digits()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(128, 10),
    ).to(device)
    trainer = smelt.Trainer(
        model, loss="cross_entropy", optimizer=optim.AdamW(model.parameters(), lr=1e-3), device=device
    )
    batches = data.Loader(train, batch_size=32, shuffle=True)
    return [trainer.step(x.float() / 16, y).item() for (x, y), _ in zip(batches, range(steps))]


def test_digits_learn_as_on_the_cpu(device):
    cpu, there = digits_losses("cpu", 20), digits_losses(device, 20)
    np.testing.assert_allclose(there, cpu, rtol=1e-4)
    assert there[-1] < there[0]
