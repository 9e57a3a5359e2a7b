"""Equality of bits, choice of kernels, random numbers, float environment, and more than 2^31 elements."""

import ctypes
import math
import mmap
import platform
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import smelt
from smelt import _core, kernels
from tests import workloads
from tests.conftest import is_whole, isa_levels


def bits(arrays):
    return [a.tobytes() for a in arrays]


# ---------------------------------------------------------------------------------------------------------- equality


@pytest.mark.parametrize("name", [n for n in workloads.WORKLOADS if n != "probe"])  # which counts what each thread does
def test_any_number_of_threads_gives_the_same_bits(isa, name):
    smelt.set_num_threads(1)
    expected = workloads.run(name)
    assert any(np.any(a) for a in expected)
    for threads in (2, 3, 5):
        smelt.set_num_threads(threads)
        assert smelt.get_num_threads() == threads
        assert bits(workloads.run(name)) == bits(expected), f"{threads} threads"


def test_workloads_run_every_slot():
    """What the tests here say of the workloads they say of the whole table."""
    with kernels.trace() as names:
        for name in workloads.WORKLOADS:
            workloads.run(name)
    assert all(set(names) & set(kernels.impls(slot)) for slot in kernels.slots())
    techniques = {n.split("_", 1)[1] for slot in kernels.slots() for n in kernels.impls(slot)}
    assert {n.split("_", 1)[1] for n in names} == techniques


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_data_at_any_address_gives_the_same_bits(isa, name):
    moved = workloads.offset(np.ones((2, 3), np.float32))
    assert moved._address() % 16 and np.array_equal(moved.numpy(), np.ones((2, 3)))
    assert bits(workloads.run(name, workloads.offset)) == bits(workloads.run(name))


@pytest.mark.parametrize("name", sorted(_core.UNARY))
def test_an_element_does_not_depend_on_where_its_piece_begins(isa, name, rng):
    for dtype in ("float32", "float64", "bfloat16"):
        x = smelt.from_numpy(rng.normal(size=1003) * 3).astype(dtype)

        def run(t):
            # Those with parameters take them from here; the others have none.
            if name in ("leaky_relu", "elu", "clip"):
                return _core.unary_with(_core.UNARY[name], t, -0.5, 0.5).numpy()
            return _core.unary(_core.UNARY[name], t).numpy()

        whole = run(x)
        for begin in (1, 3, 8, 13, 1002):
            np.testing.assert_array_equal(run(x[begin:]), whole[begin:])


def _rows(rng):
    w, v = (smelt.from_numpy(workloads.floats(rng, *s)) for s in ((70, 45), (9, 3, 3, 5)))
    scale, shift, mean, var = (smelt.from_numpy(rng.uniform(0.5, 2, 70).astype(np.float32)) for _ in range(4))
    return {
        "matmul": ((37, 70), lambda x: x @ w),
        "softmax": ((37, 70), smelt.softmax),
        "layer_norm": ((37, 70), smelt.layer_norm),
        "rms_norm": ((37, 70), smelt.rms_norm),
        "group_norm": ((37, 9, 70), lambda x: smelt.group_norm(x, 7)),
        "batch_norm": ((37, 70), lambda x: smelt.batch_norm(x, scale, shift, mean, var, False)),
        "sum": ((37, 70), lambda x: x.sum(axis=1)),
        "cumsum": ((37, 70), lambda x: x.cumsum(1)),
        "conv2d": ((7, 6, 5, 5), lambda x: smelt.conv2d(x, v, padding=1)),
        "avg_pool2d": ((7, 6, 5, 5), lambda x: smelt.avg_pool2d(x, 3, 1, 1)),
    }


@pytest.mark.parametrize("name", sorted(_rows(np.random.default_rng(0))))
def test_a_row_does_not_depend_on_the_others(isa, name, rng):
    """So the same image gets the same bits in every batch that is evaluated, as long as the reduced axes are whole."""
    shape, op = _rows(rng)[name]
    x = smelt.from_numpy(workloads.floats(rng, *shape))
    whole = op(x).numpy()
    for begin, end in [(0, 1), (1, 5), (3, shape[0]), (shape[0] - 1, shape[0])]:
        np.testing.assert_array_equal(op(x[begin:end]).numpy(), whole[begin:end])


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh"])
def test_fused_and_unfused_activations_give_the_same_bits(isa, activation, rng):
    apply = {"gelu_tanh": lambda z: smelt.gelu(z, "tanh")}.get(activation) or getattr(smelt, activation)
    for op, *shapes in [
        (smelt.linear, (33, 70), (19, 70), (19,)),
        (smelt.conv2d, (3, 7, 6, 5), (9, 3, 3, 5), (9,)),
    ]:
        arrays = [workloads.floats(rng, *s) for s in shapes]
        results = []
        for fused in (True, False):
            given = [smelt.from_numpy(a).requires_grad_() for a in arrays]
            y = op(*given, activation=activation) if fused else apply(op(*given))
            y.backward(smelt.ones(*y.shape))
            results.append(bits([y.detach().numpy(), *(t.grad.numpy() for t in given)]))
        assert results[0] == results[1]
        with smelt.no_grad():
            assert op(*(smelt.from_numpy(a) for a in arrays), activation=activation).numpy().tobytes() == results[0][0]


def test_fused_batch_norm_gives_the_bits_of_its_parts(isa, rng):
    x, other = (smelt.from_numpy(workloads.floats(rng, 300, 19)) for _ in range(2))
    w, b = (smelt.from_numpy(workloads.floats(rng, 19)) for _ in range(2))

    def run(**options):
        return smelt.batch_norm(x, w, b, smelt.zeros(19), smelt.ones(19), True, **options)

    fused = run(residual=other, activation="relu").numpy()
    np.testing.assert_array_equal(fused, smelt.relu(run() + other).numpy())


# ------------------------------------------------------------------------------------------------- choice of kernels


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_every_instruction_set_can_be_forced_and_is_what_its_level_runs(name):
    for level in filter(is_whole, isa_levels()):
        with kernels.isa(level):
            expected = workloads.run(name)
        with kernels.use(f"{level}_"), kernels.trace() as names:
            got = workloads.run(name)
        assert names and {n.split("_", 1)[0] for n in names} == {level}
        assert bits(got) == bits(expected)


def test_levels_without_all_slots_run_what_they_have_and_those_below_run_the_rest(rng):
    a, b = (smelt.from_numpy(rng.normal(size=(40, 40)).astype(np.float32)) for _ in range(2))
    for level in isa_levels():
        below = [other for other in isa_levels() if is_whole(other)]
        with kernels.isa(level), kernels.trace() as names:
            _ = a @ b, a.to("bfloat16") @ b.to("bfloat16"), a[:1].to("bfloat16") @ b.to("bfloat16")
        rest = level if is_whole(level) else below[-1]
        products = [n for n in names if n.endswith("_gemm")]
        assert products == [f"{rest}_gemm", f"{level}_gemm", f"{rest}_gemm"]  # a single row is not worth packing
        assert {n.split("_", 1)[0] for n in names if n not in products} == {rest}


def _single_slots(rng):
    """For each of these slots a call that runs it alone. All numbers are positive: sums do not cancel."""

    def positive(*shape):
        return smelt.from_numpy(rng.uniform(0.5, 1.5, shape).astype(np.float32))

    x, image, kernel, filters = positive(33, 70), positive(3, 9, 8, 5), positive(17, 3, 3, 5), positive(5, 3, 3, 1)
    picture, filters3 = positive(2, 16, 16, 24), positive(30, 3, 3, 24)
    colours, few = positive(3, 9, 8, 3), positive(7, 3, 3, 3)
    grouped = positive(10, 3, 3, 1)
    index = smelt.from_numpy(rng.integers(0, 33, 50))
    across = smelt.from_numpy(rng.integers(0, 33, (50, 70)))
    condition, w, side = x > 1, positive(70, 45), positive(70)
    sequence = positive(2, 40, 36)
    ones, labels = positive(33, 70), smelt.from_numpy(rng.integers(0, 70, 33))
    exp = _core.UNARY["exp"]
    return {
        "fill": lambda: smelt.full((37,), 2.5),
        "arange": lambda: smelt.arange(0.0, 37.0),
        "cast": lambda: x.astype("float64"),
        "copy": lambda: x.permute(1, 0),
        "unary": lambda: _core.unary(exp, x),
        "binary": lambda: x * side,
        "where": lambda: smelt.where(condition, x, ones),
        "reduce": lambda: x.sum(axis=0),
        "cumsum": lambda: x.cumsum(1),
        "sort": lambda: x.sort(),
        "check_index+take": lambda: smelt.take(x, index),
        "check_index+gather": lambda: smelt.gather(x, across, 0),
        "gemm": lambda: x @ w,
        "conv2d": lambda: smelt.conv2d(image, kernel, padding=1),
        "conv2d narrow": lambda: smelt.conv2d(colours, few, padding=1),
        "conv2d winograd4": lambda: smelt.conv2d(picture, filters3, padding=1),
        "conv2d planar": lambda: smelt.conv2d(image, grouped, padding=1, groups=5),
        "conv2d depthwise": lambda: smelt.conv2d(image, filters, padding=1, groups=5),
        "pool2d": lambda: smelt.avg_pool2d(image, 3, 2, 1),
        "layer_norm": lambda: smelt.layer_norm(x),
        "rms_norm": lambda: smelt.rms_norm(x),
        "group_norm": lambda: smelt.group_norm(x, 1),
        "softmax": lambda: smelt.softmax(x),
        "attention": lambda: smelt.attention_packed(sequence, 3),
        "loss": lambda: smelt.losses.mse_loss(x, ones),
        "check_index+cross_entropy": lambda: smelt.losses.cross_entropy(x, labels),
        "random": lambda: smelt.rand(100),
        "dropout": lambda: smelt.dropout(x, 0.5),
    }


@pytest.mark.parametrize("name", sorted(_single_slots(np.random.default_rng(0))))
def test_every_candidate_can_be_forced_by_name(name, rng):
    call = _single_slots(rng)[name]
    *before, slot = name.split()[0].split("+")
    technique = name.partition(" ")[2]
    smelt.manual_seed(3)
    with kernels.trace() as names:
        default = call().numpy()
    impls = [n for n in kernels.impls(slot) if is_whole(n) and n.split(slot)[1] in ("", "_direct", f"_{technique}")]
    assert names == [*(next(filter(is_whole, kernels.impls(s))) for s in before), impls[0]]
    for impl in impls:
        # With a slot before it the name must fit both: the instruction set alone.
        forced = impl if not before else f"{impl.split('_', 1)[0]}_"
        smelt.manual_seed(3)
        with kernels.use(forced), kernels.trace() as names:
            assert _core.forced_impl() == forced
            got = call().numpy()
        assert names[-1] == impl
        # Sums of at most 2310 positive terms in two orders: each within 2310 units, and the elementary functions 64.
        np.testing.assert_allclose(got, default, rtol=2 * (2310 + 64) * 2.0**-24, atol=2 * (70 + 64) * 2.0**-24 * 4)
        if impl == impls[0]:
            assert got.tobytes() == default.tobytes()


def test_a_lower_level_hides_the_sets_above_it():
    levels = isa_levels()
    for i, level in enumerate(levels):
        with kernels.isa(level):
            assert _core.max_isa() == level
            for slot in kernels.slots():
                assert [n.split("_", 1)[0] for n in kernels.impls(slot)][-1] == "portable"
                own = {n.split("_", 1)[0] for n in kernels.impls(slot)}
                assert own <= set(levels[: i + 1]) and own >= set(filter(is_whole, levels[: i + 1]))
            with kernels.trace() as names:
                smelt.ones(3) + 1
            top = [other for other in levels[: i + 1] if is_whole(other)][-1]
            assert names == [f"{top}_fill", f"{top}_binary"]
            for hidden in filter(is_whole, levels[i + 1 :]):
                with (
                    pytest.raises(ValueError, match=f"kernels.use: impl .*{hidden}_fill"),
                    kernels.use(f"{hidden}_fill"),
                ):
                    pass
        for hidden in filter(is_whole, levels[i + 1 :]):  # lowered within
            with (
                kernels.use(f"{hidden}_fill"),
                kernels.isa(level),
                pytest.raises(RuntimeError, match=f"fill.*{hidden}_fill"),
            ):
                smelt.ones(3)
    assert _core.max_isa() == levels[-1]


def test_wrong_names_are_errors_that_say_what_there_is():
    with pytest.raises(ValueError, match=r"no slot is named 'gem'; there are .*gemm"):
        kernels.impls("gem")
    for bad in ("sse2_fill", "", "portable_fills"):
        with (
            pytest.raises(ValueError, match=r"kernels.use: impl must begin or end the name of a kernel"),
            kernels.use(bad),
        ):
            pass
    with kernels.use("portable_gemm"), kernels.trace() as names:  # other slots choose as ever
        smelt.relu(smelt.ones(3, 3) @ smelt.ones(3, 3))
    top = [level for level in isa_levels() if is_whole(level)][-1]
    assert names == [f"{top}_fill"] * 2 + ["portable_gemm", f"{top}_unary"]
    for bad in ("sse2", "", "AVX2"):
        with pytest.raises(ValueError, match="must be portable, avx2, avx512, avx512bf16 or amx"), kernels.isa(bad):
            pass
    if isa_levels()[-1] != "amx":
        with pytest.raises(ValueError, match="this CPU has instruction sets up to"), kernels.isa("amx"):
            pass
    if "avx512" in isa_levels():  # "avx" fits avx2 and avx512: the first of the list that takes the arguments
        with kernels.use("avx"), kernels.trace() as names:
            smelt.ones(3)
        assert names == ["avx512_fill"]


def test_a_candidate_by_its_technique():
    x, w = smelt.randn(1, 5, 5, 4), smelt.randn(4, 3, 3, 1)
    with kernels.trace() as names:
        smelt.conv2d(x, w, groups=4)
        with kernels.use("direct"):
            smelt.conv2d(x, w, groups=4)
    assert [name.rpartition("_")[2] for name in names] == ["depthwise", "direct"]


# --------------------------------------------------------------------------------------------------- random numbers


# Random123 1.14.0, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_the_published_vectors(counter, key, result):
    low, high = (counter[i] | counter[i + 1] << 32 for i in (0, 2))
    assert _core.philox(key[0] | key[1] << 32, low, high) == result


@pytest.mark.parametrize("seed", [0, 12345, 2**64 - 1])
def test_random_numbers_are_philox_by_the_counter(isa, seed):
    """Element i is lane i % 4 of counter i / 4, whatever kernel draws it; the next call goes on behind."""
    smelt.manual_seed(seed)
    uniform, normal = smelt.rand(203), smelt.randn(1000, dtype="float64")
    used = -(-203 // 4)
    lanes = np.array([_core.philox(seed, i, 0) for i in range(used)], np.float64).reshape(-1)[:203]
    np.testing.assert_array_equal(uniform.numpy(), (np.floor(lanes / 256) * 2.0**-24).astype(np.float32))
    lanes = np.array([_core.philox(seed, used + i, 0) for i in range(250)], np.float64).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log((lanes[:, 0] + 1) * 2.0**-32)), 2 * math.pi * lanes[:, 1] * 2.0**-32
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
    # A few roundings of logarithm, root and angle (up to 2 pi): 16 units of the radius.
    np.testing.assert_allclose(normal.numpy(), pairs, rtol=0, atol=16 * 2.0**-53 * 7)


def test_all_instruction_sets_draw_the_same_numbers():
    results = []
    for level in isa_levels():
        with kernels.isa(level):
            results.append(bits(workloads.run("random")))
    assert all(r == results[0] for r in results)


def kolmogorov_smirnov(x, cdf):
    """sqrt(n) times the largest distance of the distribution functions: above 1.95 in 1 of 1000 samples."""
    x, n = np.sort(x.astype(np.float64)), x.size
    expected = np.array([cdf(v) for v in x])
    up, down = np.arange(1, n + 1) / n - expected, expected - np.arange(n) / n
    return math.sqrt(n) * max(up.max(), down.max())


def chi_square(counts, expected):
    """Normalised by Wilson and Hilferty to a normal deviate: above 3.1 in 1 of 1000 samples."""
    statistic, k = float(((counts - expected) ** 2 / expected).sum()), counts.size - 1
    return ((statistic / k) ** (1 / 3) - (1 - 2 / (9 * k))) / math.sqrt(2 / (9 * k))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distributions(seed):
    """The seeds are fixed, so what passes once passes always; limits are those of 1 in 1000."""
    n = 20000
    smelt.manual_seed(seed)
    uniform, normal, integers = smelt.rand(n).numpy(), smelt.randn(n).numpy(), smelt.randint(-3, 10, n).numpy()
    assert uniform.min() >= 0 and uniform.max() < 1
    assert kolmogorov_smirnov(uniform, lambda v: v) < 1.95
    assert kolmogorov_smirnov(normal, lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2)))) < 1.95
    # Neighbours, and the two of a pair, are independent: 10 x 10 cells; the correlation's deviation is 1 / sqrt(n).
    cells = np.histogram2d(uniform[::2], uniform[1::2], bins=10, range=[[0, 1], [0, 1]])[0].reshape(-1)
    assert chi_square(cells, n / 2 / 100) < 3.1
    assert abs((normal[::2] * normal[1::2]).mean()) < 3.3 / math.sqrt(n / 2)
    assert integers.min() == -3 and integers.max() == 9
    assert chi_square(np.bincount(integers + 3, minlength=13), n / 13) < 3.1
    permutation = smelt.randperm(n).numpy()
    np.testing.assert_array_equal(np.sort(permutation), np.arange(n))
    assert chi_square(np.bincount(permutation[: n // 2] * 20 // n, minlength=20), n / 40) < 3.1


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_each_element_with_its_probability(p):
    n = 20000
    dropped = smelt.dropout(smelt.ones(n), p).numpy()
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], 1 / (1 - p), rtol=2**-23)  # the quotient, rounded to float32
    deviation = math.sqrt(n * p * (1 - p))
    assert abs(kept.sum() - n * (1 - p)) < 3.3 * deviation
    # Runs of the same fate: as many changes between neighbours as independent ones have.
    changes, chance = (kept[1:] != kept[:-1]).sum(), 2 * p * (1 - p)
    assert abs(changes - (n - 1) * chance) < 3.3 * math.sqrt(n * chance)  # the variance is at most n * chance


# ------------------------------------------------------------------------------------------------ float environment


FLUSH = 0x8040  # flush to zero, and denormals are zero


@contextmanager
def caller_mode(flush=False, upward=False):
    """Sets MXCSR as another library may have left it: the last four bytes of glibc's fenv_t on x86-64."""
    if platform.machine() != "x86_64" or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        pytest.skip("fenv_t is known here for glibc on x86-64 alone")
    libm = ctypes.CDLL("libm.so.6")
    before, now = (ctypes.create_string_buffer(32) for _ in range(2))
    libm.fegetenv(before)
    state = bytearray(before.raw)
    mxcsr = int.from_bytes(state[28:], "little") | (FLUSH if flush else 0) | (0x4000 if upward else 0)
    now.raw = bytes(state[:28]) + mxcsr.to_bytes(4, "little")
    libm.fesetenv(now)
    control = ctypes.create_string_buffer(32)
    try:
        yield
        libm.fegetenv(control)
    finally:
        libm.fesetenv(before)
    # The sticky flags below aside, smelt has given the mode back.
    assert int.from_bytes(control.raw[28:], "little") & 0xFFC0 == mxcsr & 0xFFC0


@pytest.mark.parametrize("threads", [1, 3])
def test_flush_to_zero_in_the_caller_changes_nothing(isa, threads):
    smelt.set_num_threads(threads)
    tiny = np.full(100001, 1e-40, np.float32)
    with caller_mode(flush=True):
        flushed = float((tiny[:1] * np.float32(1.0)).view(np.int32)[0])
        results = [(smelt.from_numpy(tiny) * smelt.ones(1)).numpy(), smelt.from_numpy(tiny).sum().numpy()]
        wide = smelt.from_numpy(tiny).astype("float64").numpy()
    assert flushed == 0, "the mode was not set"
    np.testing.assert_array_equal(results[0].view(np.int32), tiny.view(np.int32))
    # 100001 subnormal numbers make a normal one; sums of integers of 2^-149 below 2^24 of them are exact.
    assert results[1] == pytest.approx(100001 * float(tiny[0]), rel=100001 * 2.0**-24)
    np.testing.assert_array_equal(wide, tiny.astype(np.float64))


class Recorded:
    """A generator that keeps what it gave, as float32, and gives it again after rewind()."""

    def __init__(self, rng):
        self.rng, self.kept, self.at = rng, [], 0

    def rewind(self):
        self.at = 0

    def __getattr__(self, name):
        def draw(*args, **options):
            if self.at == len(self.kept):
                made = getattr(self.rng, name)(*args, **options)
                self.kept.append(np.asarray(made).astype(np.float32) if np.asarray(made).dtype.kind == "f" else made)
            self.at += 1
            return self.kept[self.at - 1]

        return draw


@pytest.mark.parametrize("name", ["matmul", "norm", "softmax", "conv", "optimizers", "elementwise"])
def test_rounding_upward_in_the_caller_changes_nothing(isa, name):
    """The inputs are made under the usual mode; smelt alone runs under the other."""
    rng = Recorded(np.random.default_rng(sum(map(ord, name))))
    expected = [np.array(t.numpy()) for t in workloads.WORKLOADS[name](workloads.as_made, rng)]
    rng.rewind()
    with caller_mode(upward=True):
        assert np.float32(1) + np.float32(1e-20) > 1, "the mode was not set"
        got = [np.array(t.numpy()) for t in workloads.WORKLOADS[name](workloads.as_made, rng)]
    assert bits(got) == bits(expected)


# ------------------------------------------------------------------------------------------------------ large tensors


def available_bytes():
    try:
        with open("/proc/meminfo") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0


@pytest.mark.slow
def test_more_than_two_to_the_31_elements():
    if available_bytes() < 8 * 2**30:
        pytest.skip(f"needs 8 GiB of free memory, has {available_bytes() / 2**30:.1f} GiB")
    n = 2**31 + 1003
    # Pages that nobody writes stay shared zeros, and cost less time than those of a tensor of our own would.
    memory = mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    x = smelt.from_numpy(np.frombuffer(memory, np.uint8), copy=False)
    assert x.size == n and x.nbytes == n and x.shape == (n,)
    x[n - 2] = 7
    x[2**31 + 5] = 9
    assert x[-2].item() == 7 and x[2**31 + 5].item() == 9 and x[5].item() == 0
    tail = x[2**31 :]
    assert tail.shape == (1003,) and tail.sum().item() == 16 and x[:1003].sum().item() == 0
    assert smelt.take(x, smelt.tensor([0, n - 2, 2**31 + 5])).tolist() == [0, 7, 9]
    assert x.numpy()[n - 2] == 7
    rows = x[:-1].reshape(2, -1)
    assert rows.shape == (2, n // 2) and rows[1, -1].item() == 7 and rows.max(axis=1).tolist() == [0, 9]
    assert x.argmax().item() == 2**31 + 5
    x[2**31 - 3 :] = 1
    _core.put(x, smelt.tensor([3, n - 1]), smelt.tensor([200, 200], dtype="uint8"))
    assert tail.sum().item() == 1003 - 1 + 200 and x[2**31 - 4].item() == 0 and x[2**31 - 3].item() == 1
    assert x[3].item() == 200
    with pytest.raises(IndexError, match=str(n)):
        x[n]


@pytest.mark.slow
def test_a_tensor_of_more_than_two_to_the_31_bytes_is_allocated_and_freed():
    if available_bytes() < 8 * 2**30:
        pytest.skip(f"needs 8 GiB of free memory, has {available_bytes() / 2**30:.1f} GiB")
    n = 2**31 + 1003
    before = smelt.memory_stats()["in_use"]
    x = _core.empty([n], "uint8", "cpu")  # its pages are touched where they are written alone
    assert smelt.memory_stats()["in_use"] - before >= n
    x[2**31 - 2 : 2**31 + 2] = 5
    x[-1] = 6
    assert x[2**31 - 2 : 2**31 + 2].tolist() == [5] * 4 and x[n - 1].item() == 6
    del x
    assert smelt.memory_stats()["in_use"] == before
    smelt.empty_cache()
    assert smelt.memory_stats()["cached"] < n
