"""smelt.kernels: single kernels on arrays that share memory, errors before anything runs, kernels of one's own."""

import os
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

import smelt
from smelt import kernels, losses
from tests.conftest import isa_levels
from tests.processes import run

F32 = np.float32


def floats(rng, *shape):
    return rng.normal(size=shape).astype(F32)


def same(got, expected):
    expected = expected.numpy() if isinstance(expected, smelt.Tensor) else np.asarray(expected)
    np.testing.assert_array_equal(np.asarray(got).reshape(expected.shape), expected)


def tensors(*arrays):
    return [smelt.from_numpy(a) for a in arrays]


def close(got, exact, size, roundings):
    """Within so many roundings of float32, relative to the size of what was summed."""
    assert np.all(np.abs(np.asarray(got, np.float64) - exact) <= roundings * 2.0**-24 * size)


def product(a, b):
    """a b and |a| |b| in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b, np.abs(a) @ np.abs(b)


class Exporter:
    """Nothing but the protocol."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_every_slot_has_a_function():
    assert set(kernels.slots()) <= set(kernels.__all__)


# ------------------------------------------------------------------------------------------- the bits of the ops


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_gemm_gives_the_bits_of_matmul(rng, level, transpose_a, transpose_b):
    a = floats(rng, *((33, 17) if transpose_a else (17, 33)))
    b = floats(rng, *((29, 33) if transpose_b else (33, 29)))
    with kernels.isa(level):
        c = kernels.gemm(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
        same(c, smelt.matmul(*tensors(a, b), transpose_a, transpose_b))


def test_gemm_with_everything(rng):
    a, b, bias, c = floats(rng, 3, 5, 7), floats(rng, 7, 4), floats(rng, 4), floats(rng, 3, 5, 4)
    before = c.copy()
    assert kernels.gemm(a, b, alpha=0.5, accumulate=True, out=c) is c
    exact, size = product(a, b)
    close(c, before + 0.5 * exact, np.abs(before) + 0.5 * size, 7 + 2)
    y = kernels.gemm(a, b, bias, activation="relu")
    close(y, np.maximum(exact + bias, 0), size + np.abs(bias), 7 + 2)
    batched = floats(rng, 3, 7, 4)
    close(kernels.gemm(a, batched), *product(a, batched), 7 + 2)


def test_convolution_gives_the_bits_of_the_op(rng):
    x, w = floats(rng, 2, 7, 6, 4), floats(rng, 6, 3, 2, 2)
    options = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    tx, tw = (t.requires_grad_() for t in tensors(x, w))
    y = smelt.conv2d(tx, tw, **options)
    dy = floats(rng, *y.shape)
    y.backward(smelt.from_numpy(dy))
    same(kernels.conv2d(x, w, **options), y.detach())
    same(kernels.conv2d_backward_input(dy, w, (7, 6), **options), tx.grad)
    same(kernels.conv2d_backward_weight(x, dy, (3, 2), **options), tw.grad)
    twice = kernels.conv2d_backward_weight(x, dy, (3, 2), **options)
    kernels.conv2d_backward_weight(x, dy, (3, 2), **options, accumulate=True, out=twice)
    same(twice, 2 * tw.grad.numpy())  # the same sum added to itself is exact


@pytest.mark.parametrize("maximum", [True, False])
def test_pooling_gives_the_bits_of_the_op(rng, maximum):
    x = floats(rng, 2, 7, 6, 3)
    t = smelt.from_numpy(x).requires_grad_()
    y = (smelt.max_pool2d if maximum else smelt.avg_pool2d)(t, (3, 2), (2, 2), (1, 0))
    dy = floats(rng, *y.shape)
    y.backward(smelt.from_numpy(dy))
    got = kernels.pool2d(x, (3, 2), stride=2, padding=(1, 0), max=maximum)
    got, index = got if maximum else (got, None)
    same(got, y.detach())
    same(kernels.pool2d_backward(dy, (7, 6), (3, 2), index=index, stride=2, padding=(1, 0)), t.grad)


def test_places_of_maxima_fill_a_byte_up_to_256_pixels_of_a_window(rng):
    for size, dtype in ((16, np.uint8), (17, np.int32)):
        x = floats(rng, 2, size, size, 5)
        y, index = kernels.pool2d(x, size)
        flat = x.reshape(2, size * size, 5)
        assert index.dtype == dtype
        same(index[:, 0, 0], flat.argmax(1).astype(dtype))
        same(y[:, 0, 0], flat.max(1))
        dx = kernels.pool2d_backward(np.ones_like(y), (size, size), size, index=index).reshape(flat.shape)
        same(dx, (np.arange(size * size)[:, None] == flat.argmax(1)[:, None]).astype(F32))


@pytest.mark.parametrize("maximum", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (2, 3, 0)])
def test_gradients_of_pooling_are_added_once_where_wanted(isa, rng, maximum, kernel, stride, padding):
    x = floats(rng, 2, 7, 9, 19)
    options = {"stride": stride, "padding": padding}
    got = kernels.pool2d(x, kernel, max=maximum, **options)
    y, index = got if maximum else (got, None)
    dy, held = floats(rng, *y.shape), floats(rng, *x.shape)
    dx = kernels.pool2d_backward(dy, (7, 9), kernel, index=index, **options)
    out = held.copy()
    kernels.pool2d_backward(dy, (7, 9), kernel, index=index, accumulate=True, out=out, **options)
    same(out, held + dx)


def test_rows_of_an_embedding_are_summed_before_they_are_rounded(isa, rng):
    index = rng.integers(0, 5, 300)
    dy = smelt.from_numpy(floats(rng, 300, 37)).astype("bfloat16")
    table = smelt.zeros(7, 37, dtype="bfloat16").requires_grad_()
    smelt.embedding(smelt.from_numpy(index), table).backward(dy)
    sums = np.zeros((7, 37), F32)
    for j, r in enumerate(index):
        sums[r] += dy.float().numpy()[j]
    same(table.grad, smelt.from_numpy(sums).astype("bfloat16"))


def test_normalisation_gives_the_bits_of_the_ops(rng):
    x, w, b, dy = floats(rng, 9, 5), floats(rng, 5), floats(rng, 5), floats(rng, 9, 5)
    tx, tw, tb = (t.requires_grad_() for t in tensors(x, w, b))
    y = smelt.layer_norm(tx, tw, tb)
    y.backward(smelt.from_numpy(dy))
    got, mean, rstd = kernels.layer_norm(x, w, b)
    same(got, y.detach())
    for mine, theirs in zip(kernels.layer_norm_backward(x, mean, rstd, dy, weight=w), (tx, tw, tb)):
        same(mine, theirs.grad)

    tx, tw = (t.requires_grad_() for t in tensors(x, w))
    y = smelt.rms_norm(tx, tw)
    y.backward(smelt.from_numpy(dy))
    got, rstd = kernels.rms_norm(x, w)
    same(got, y.detach())
    for mine, theirs in zip(kernels.rms_norm_backward(x, rstd, dy, weight=w), (tx, tw)):
        same(mine, theirs.grad)

    tx, tw, tb = (t.requires_grad_() for t in tensors(x.reshape(3, 3, 5), w, b))
    y = smelt.group_norm(tx, 5, tw, tb)
    y.backward(smelt.from_numpy(dy.reshape(3, 3, 5)))
    got, mean, rstd = kernels.group_norm(x.reshape(3, 3, 5), 5, w, b)
    same(got, y.detach())
    found = kernels.group_norm_backward(x.reshape(3, 3, 5), 5, mean, rstd, dy.reshape(3, 3, 5), weight=w)
    for mine, theirs in zip(found, (tx, tw, tb)):
        same(mine, theirs.grad)
    with pytest.raises(ValueError, match="group_norm: groups must divide the channels, got 2 groups of 5 channels"):
        kernels.group_norm(x.reshape(3, 3, 5), 2)

    other, dsum = floats(rng, 9, 5), floats(rng, 9, 5)
    for raw, slopes, op in (
        (kernels.layer_norm, kernels.layer_norm_backward, smelt.add_layer_norm),
        (kernels.rms_norm, kernels.rms_norm_backward, smelt.add_rms_norm),
    ):
        tx, tr, tw = (t.requires_grad_() for t in tensors(x, other, w))
        total, y = op(tx, tr, tw)
        (total * smelt.from_numpy(dsum) + y * smelt.from_numpy(dy)).sum().backward()
        got = raw(x, w, residual=other)
        same(got[0], total.detach())
        same(got[1], y.detach())
        dx, dweight = slopes(got[0], *got[2:], dy, weight=w, dsum=dsum)[:2]
        for mine, theirs in zip((dx, dx, dweight), (tx, tr, tw)):
            same(mine, theirs.grad)

    tx, tw, tb = (t.requires_grad_() for t in tensors(x, w, b))
    running = [np.zeros(5, F32), np.ones(5, F32)]
    moved = tensors(*(r.copy() for r in running))
    y = smelt.batch_norm(tx, tw, tb, *moved, True)
    y.backward(smelt.from_numpy(dy))
    got, mean, rstd = kernels.batch_norm(x, w, b, *running, training=True)
    same(got, y.detach())
    same(running[0], moved[0])
    same(running[1], moved[1])
    for mine, theirs in zip(kernels.batch_norm_backward(x, w, mean, rstd, dy, training=True), (tx, tw, tb)):
        same(mine, theirs.grad)
    image, pair = floats(rng, 2, 5, 4, 5), (2, 3)
    tx, tw, tb = (t.requires_grad_() for t in tensors(image, w, b))
    y = smelt.batch_norm(tx, tw, tb, *moved, True, activation="relu", max_pool=pair)
    got, mean, rstd, index = kernels.batch_norm(image, w, b, *running, training=True, activation="relu", max_pool=pair)
    same(got, y.detach())
    assert index.shape == got.shape == (2, 2, 1, 5) and index.dtype == np.uint8
    dy = floats(rng, *got.shape)
    y.backward(smelt.from_numpy(dy))
    given = dict(training=True, bias=b, index=index, max_pool=pair)
    for mine, theirs in zip(kernels.batch_norm_backward(image, w, mean, rstd, dy, **given), (tx, tw, tb)):
        same(mine, theirs.grad)
    for wrong, problem in [
        (dict(index=None), "index must be given with max_pool, and None without"),
        (dict(index=index + np.uint8(6)), r"index must be in \[0, 6\), got 6 at position 0"),
        (dict(max_pool=(6, 1)), "kernel must fit the padded input of 5, got 6"),
        (dict(y=got), "y must be None with bias or max_pool"),
    ]:
        with pytest.raises((ValueError, IndexError), match=f"^batch_norm_backward: {problem}"):
            kernels.batch_norm_backward(image, w, mean, rstd, dy, **{**given, **wrong})
    for shape, wrong, problem in [
        ((2, 5, 5), {}, r"max_pool needs images \(N, H, W, C\), got x of shape \(2, 5, 5\)"),
        ((2, 5, 4, 5), dict(residual=image), "max_pool must be None with a residual"),
        ((2, 5, 4, 5), dict(activation="gelu"), "activation must be None or 'relu', got 'gelu'"),
        ((1, 17, 17, 5), dict(max_pool=17), "max_pool must have at most 256 pixels, got 289"),
    ]:
        with pytest.raises(ValueError, match=f"^batch_norm: {problem}$"):
            kernels.batch_norm(floats(rng, *shape), w, b, *running, **{"training": True, "max_pool": 2, **wrong})
    frozen, *_ = kernels.batch_norm(x, w, b, *running, training=False, residual=x, activation="relu")
    scale = np.abs(w / np.sqrt(running[1].astype(np.float64) + 1e-5))
    expected = (x - running[0].astype(np.float64)) * np.sign(w) * scale + b + x
    close(frozen, np.maximum(expected, 0), (np.abs(x) + np.abs(running[0])) * scale + np.abs(b) + np.abs(x), 8)


@pytest.mark.parametrize("log", [False, True])
def test_softmax_gives_the_bits_of_the_op(rng, log):
    x, dy = floats(rng, 2, 3, 5), floats(rng, 2, 3, 5)
    t = smelt.from_numpy(x).requires_grad_()
    y = (smelt.log_softmax if log else smelt.softmax)(t)
    y.backward(smelt.from_numpy(dy))
    got = kernels.softmax(x, log=log)
    same(got, y.detach())
    same(kernels.softmax_backward(got, dy, log=log), t.grad)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses_give_the_bits_of_the_ops(rng, reduction):
    x, labels, weight = floats(rng, 7, 4), rng.integers(0, 4, 7), np.abs(floats(rng, 4))
    labels[2] = -100
    t = smelt.from_numpy(x).requires_grad_()
    options = {"label_smoothing": 0.1, "reduction": reduction}
    y = losses.cross_entropy(t, smelt.from_numpy(labels), weight=smelt.from_numpy(weight), **options)
    dloss = np.ones(y.shape or (1,), F32)
    y.backward(smelt.ones(*y.shape) if y.shape else None)
    got, lse, total = kernels.cross_entropy(x, labels, weight=weight, **options)
    same(got, y.detach())
    same(kernels.cross_entropy_backward(x, labels, lse, total, dloss, weight=weight, **options), t.grad)

    target = floats(rng, 7, 4)
    t = smelt.from_numpy(x).requires_grad_()
    y = losses.huber_loss(t, smelt.from_numpy(target), delta=0.5, reduction=reduction)
    y.backward(smelt.ones(*y.shape) if y.shape else None)
    same(kernels.loss(x, target, "huber", delta=0.5, reduction=reduction), y.detach())
    dloss = np.ones(y.shape or (1,), F32)
    same(kernels.loss_backward(x, target, dloss, "huber", delta=0.5, reduction=reduction), t.grad)


def test_elementwise_gives_the_bits_of_the_ops(rng):
    x, y = floats(rng, 3, 1, 5), floats(rng, 4, 1)
    tx, ty = tensors(x, y)
    same(kernels.binary(x, y, "div"), tx / ty)
    same(kernels.binary(x, 0.25, "maximum"), smelt.maximum(tx, 0.25))
    assert kernels.binary(x, y, "lt").dtype == np.bool_
    same(kernels.where(kernels.binary(x, y, "lt"), x, y), smelt.where(tx < ty, tx, ty))
    same(kernels.unary(x, "gelu"), smelt.gelu(tx))
    same(kernels.unary(x, "clip", a=-0.5, b=0.5), tx.clip(-0.5, 0.5))
    t = smelt.from_numpy(x).requires_grad_()
    smelt.gelu(t).sum().backward()
    same(kernels.unary_backward(x, np.ones_like(x), "gelu"), t.grad)
    same(kernels.copy(x, (2, 0, 1)), tx.permute(2, 0, 1))
    same(kernels.cast(x, "float16"), tx.astype("float16"))
    assert kernels.cast(x, "bfloat16").dtype == smelt.bfloat16
    same(kernels.fill(np.empty((2, 3), np.int32), 7), np.full((2, 3), 7))
    same(kernels.arange(np.empty(5, F32), 1, 0.5), np.arange(1, 3.5, 0.5))


NUMPY = {
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "square": np.square, "floor": np.array, "ceil": np.array,
    "round": np.array, "trunc": np.array, "relu": lambda x: np.maximum(x, 0), "clip": lambda x: np.clip(x, -1, 3),
    "isnan": np.isnan, "isinf": np.isinf, "logical_not": np.logical_not,
}  # fmt: skip


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("skip", [0, 1, 5])
def test_large_results_are_written_past_the_caches(rng, level, skip):
    n = (16 << 20) + 77  # elements; from 16 MiB on
    x = rng.integers(0, 256, n, dtype=np.uint8)

    def room(dtype):
        return np.full(n + 32, 123, dtype)

    def inside(whole):  # nothing beside it may change
        assert (whole[:skip] == 123).all() and (whole[n + skip :] == 123).all()
        return whole[skip : n + skip]

    with kernels.isa(level):
        wide = room(F32)
        kernels.cast(x, "float32", out=inside(wide))
        same(inside(wide), x)
        copied, bytes_copied = room(F32), room(np.uint8)
        kernels.copy(inside(wide), out=inside(copied))
        same(inside(copied), inside(wide))
        kernels.copy(x, out=inside(bytes_copied))
        same(inside(bytes_copied), x)
        halves = room(np.float16)
        kernels.cast(inside(wide), "float16", out=inside(halves))  # up to 255: exact
        same(inside(halves).astype(F32), inside(wide))
        kernels.cast(inside(halves), "float32", out=inside(copied), accumulate=True)
        same(inside(copied), 2 * inside(wide))
        kernels.fill(inside(bytes_copied), 7)
        kernels.fill(inside(copied), 0.5)
        assert (inside(bytes_copied) == 7).all() and (inside(copied) == 0.5).all()


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("op", sorted(smelt._core.UNARY))
def test_functions_of_integers_stay_in_them_or_are_refused(op, dtype):
    x = np.array([0, 1, 3, 5] if dtype in ("uint8", "bool") else [0, -2, 3, 5]).astype(dtype)
    if op not in NUMPY or (dtype == "bool" and op not in ("isnan", "isinf", "logical_not")):
        with pytest.raises(TypeError, match=f"unary: x must be .*, got {dtype}"):
            kernels.unary(x, op)
    elif not (dtype == "uint8" and op == "clip"):  # its lower bound is below 0
        same(kernels.unary(x, op, a=-1, b=3), NUMPY[op](x))


def test_random_numbers_are_those_of_their_counters():
    u = kernels.random(np.empty(10, F32), "uniform", seed=3)
    same(kernels.random(np.empty(6, F32), "uniform", seed=3, counter=1), u[4:])
    same(kernels.random(np.empty(6, F32), "uniform", seed=3, offset=1), u[4:])
    bits = kernels.random(np.empty(4, np.int64), "bits", seed=3)
    assert tuple(bits) == smelt._core.philox(3, 0, 0)
    y = kernels.dropout(np.ones(1000, F32), 0.5, seed=1)
    assert set(np.unique(y)) == {0, 2} and 400 < np.count_nonzero(y) < 600


def test_reductions_and_indexing_give_the_bits_of_the_ops(rng):
    x = floats(rng, 3, 4, 5)
    (t,) = tensors(x)
    for axis in (0, 1, -1):
        same(kernels.reduce(x, "sum", axis), t.sum(axis=axis))
        value, place = kernels.reduce(x, "min", axis, index=True)
        same(value, t.min(axis=axis))
        same(place, t.argmin(axis=axis))
        same(kernels.cumsum(x, axis), t.cumsum(axis))
    same(kernels.reduce(x > 0, "any", 1), (t > 0).any(axis=1))
    assert kernels.reduce(np.ones((2, 3), np.uint8), "sum").dtype == np.int64
    value, place = kernels.sort(x, descending=True)
    same(np.take_along_axis(x, place, -1), value)
    index = np.array([3, 0, 3])
    same(kernels.take(x, index, 1), np.take(x, index, 1))
    out = np.zeros((3, 4, 5), F32)
    assert kernels.put(out, index, x[:, :3].copy(), 1) is out
    expected = np.zeros_like(out)
    np.add.at(expected, (slice(None), index), x[:, :3])
    same(out, expected)
    where = rng.integers(0, 4, (3, 2, 5))
    same(kernels.gather(x, where, 1), np.take_along_axis(x, where, 1))
    out = np.zeros((3, 4, 5), F32)
    kernels.scatter_add(out, where, x[:, :2].copy(), 1)
    same(out, smelt.scatter_add(smelt.zeros(3, 4, 5), *tensors(where, x[:, :2].copy()), 1))
    same(kernels.nonzero(x > 0), np.flatnonzero(x > 0))


def test_optimizers_update_in_place(rng):
    p, g, m, v = floats(rng, 200), floats(rng, 200), np.zeros(200, F32), np.zeros(200, F32)
    layer = smelt.nn.Parameter(smelt.from_numpy(p.copy()))
    optimizer = smelt.optim.AdamW([layer], lr=0.1, weight_decay=0.01)
    (layer * smelt.from_numpy(g)).sum().backward()
    optimizer.step()
    kernels.adam(p, g, m, v, lr=0.1, step=1, weight_decay=0.01)
    same(p, layer.detach())
    kept = p[:64].copy()
    kernels.sgd(p, g, lr=1.0, segments=[(64, 136)])
    same(p[:64], kept)
    assert kernels.sum_squares(g, segments=[(0, 64)]) == pytest.approx(np.sum(g[:64].astype(float) ** 2))
    assert kernels.clip_scale(np.array([np.nan]), 1.0)[2]


# ---------------------------------------------------------------------------------------------------- arrays as they lie


def test_nothing_is_copied(rng):
    a, b, c = floats(rng, 4, 5), floats(rng, 5, 6), np.empty((4, 6), F32)
    before = smelt.memory_stats()["allocations"]
    assert kernels.unary(a, "neg", out=(out := np.empty_like(a))) is out
    assert kernels.gemm(Exporter(a), b, out=c) is c
    close(c, *product(a, b), 5 + 2)
    with kernels.trace() as names:
        kernels.gemm(a, b, out=c)
    assert [n.split("_", 1)[1] for n in names] == ["gemm"]
    assert smelt.memory_stats()["allocations"] - before <= 3  # workspaces


def test_results_are_of_the_kind_of_the_first_argument(rng):
    a, b = floats(rng, 2, 3), floats(rng, 3, 2)
    assert isinstance(kernels.gemm(a, b), np.ndarray)
    assert isinstance(kernels.gemm(*tensors(a, b)), smelt.Tensor)
    half = smelt.from_numpy(a).astype("bfloat16")
    assert kernels.gemm(half, smelt.from_numpy(b).astype("bfloat16")).dtype == smelt.bfloat16


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_empty_products(shape):
    m, n, k = shape
    same(kernels.gemm(np.ones((m, k), F32), np.ones((k, n), F32)), np.zeros((m, n), F32))


def aligned_wrongly():
    return np.zeros(4 * 6 + 1, np.uint8)[1:].view(F32).reshape(2, 3)


A, X = np.ones((2, 3), F32), np.ones((1, 5, 5, 3), F32)
B = np.ones((3, 4), F32)
WIDE = np.ones((8, 8), F32)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: kernels.gemm(WIDE[::2, :3], B), ValueError, "gemm: a cannot be used where it lies"),
        (lambda: kernels.gemm(aligned_wrongly(), B), ValueError, "gemm: a cannot be used where it lies"),
        (lambda: kernels.gemm(A, smelt.from_numpy(np.ones((4, 3), F32)).T), ValueError, "gemm: b must be row-major"),
        (lambda: kernels.gemm(A, B, out=WIDE.reshape(-1)[:8].reshape(2, 4)[:, ::-1]), ValueError, "gemm: c cannot be"),
        (lambda: kernels.gemm(A, B, out=np.ones((2, 5), F32)), ValueError, r"gemm: c must be .* = \(2, 4\), got \(2, 5\)"),
        (lambda: kernels.gemm(A, np.ones((4, 4), F32)), ValueError, r"gemm: b must be \(K, N\) = \(3, N\), got \(4, 4\)"),
        (lambda: kernels.gemm(A, B.astype(float)), TypeError, "gemm: b must be float32, got float64"),
        (lambda: kernels.gemm(A.astype(int), B), TypeError, "gemm: a must be float32 or .*, got int64"),
        (lambda: kernels.gemm([[1.0]], B), TypeError, "gemm: a must be a NumPy array or have __dlpack__, got list"),
        (lambda: kernels.gemm(A, B, impl="no_such"), ValueError, "gemm: impl must be one of .*portable_gemm.*'no_such'"),
        (lambda: kernels.gemm(A, B, activation="no"), ValueError, "gemm: activation must be one of .*, got 'no'"),
        (lambda: kernels.gemm(A, B, accumulate=True), ValueError, "gemm: accumulate needs c"),
        (lambda: kernels.gemm(smelt.ones(2, 3).requires_grad_(), B), ValueError, "gemm: a must be off the tape"),
        (lambda: kernels.unary(A, "exp", out=A), ValueError, "unary: y must not overlap x"),
        (lambda: kernels.unary(A, "no"), ValueError, "unary: op must be one of"),
        (lambda: kernels.unary(np.ones(2, np.int32), "exp"), TypeError, "unary: x must be float32 or .*, got int32"),
        (lambda: kernels.unary(np.ones(2, bool), "neg"), TypeError, "unary: x must be .*, got bool"),
        (lambda: kernels.unary_backward(A, A, "sign"), ValueError, "unary_backward: op must be one of .*, got 'sign'"),
        (lambda: kernels.binary(np.ones(2, np.int64), 2, "div"), TypeError, "binary: a must be float32 or .*, got int64"),
        (lambda: kernels.binary(np.ones(2, bool), np.ones(2, bool), "sub"), TypeError, "binary: a must be .*, got bool"),
        (lambda: kernels.softmax(np.ones((), F32)), ValueError, "softmax: x must have at least 1 axes"),
        (lambda: kernels.conv2d(np.ones((1, 2, 2, 3), F32), np.ones((1, 3, 3, 3), F32)), ValueError, "kernel must fit"),
        (lambda: kernels.conv2d(X, np.ones((1, 3, 3, 2), F32)), ValueError, "weight has 2 input channels, input has 3"),
        (lambda: kernels.conv2d(X, np.ones((1, 3, 3, 2), F32), groups=2), ValueError, "groups must divide"),
        (lambda: kernels.conv2d(X, np.ones((1, 3, 3, 3), F32), padding="same"), ValueError, "padding must be an integer"),
        (lambda: kernels.conv2d(np.ones((1, 5, 5, 3), F32), np.ones((1, 3, 3, 3), F32), stride=0), ValueError, "stride"),
        (lambda: kernels.pool2d(np.ones((1, 4, 4, 1), F32), 2, padding=2), ValueError, "at most half"),
        (
            lambda: kernels.pool2d_backward(np.ones((1, 1, 1, 1), F32), (2, 2), 2, index=np.array([[[[4]]]], np.uint8)),
            IndexError,
            "got 4 at position 0",
        ),
        (lambda: kernels.cross_entropy(A, np.array([0, 3])), IndexError, "got 3 at position 1"),
        (lambda: kernels.take(A, np.array([2])), IndexError, "got 2 at position 0"),
        (lambda: kernels.reduce(A, "max", 5), IndexError, r"reduce: axis must be in \[-2, 2\), got 5"),
        (lambda: kernels.reduce(np.ones((2, 0), F32), "max"), ValueError, "needs at least one element"),
        (lambda: kernels.binary(A, B, "add"), ValueError, "binary: shapes must broadcast"),
        (lambda: kernels.dropout(A, 1.0), ValueError, r"p must be in \[0, 1\), got 1.0"),
        (lambda: kernels.sgd(np.ones(4, F32), np.ones(4, F32), lr=1, segments=[(2, 3)]), ValueError, "segments must lie"),
        (lambda: kernels.adam(*(np.ones(4, F32) for _ in range(4)), lr=1, step=0), ValueError, "step must be at least 1"),
        (lambda: kernels.put(np.ones(3, np.int64), np.array([0]), np.array([1])), TypeError, "put: out must be"),
        (lambda: kernels.impls("no"), ValueError, "no slot is named 'no'"),
    ],
)  # fmt: skip
def test_errors_say_what_was_required_and_given(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_result_too_large_to_address_is_refused():
    tall = np.empty((2**50, 0), F32)
    with pytest.raises(ValueError, match="more bytes than there are addresses"):
        kernels.gemm(tall, np.empty((0, 2**20), F32))


def test_sums_of_halves_may_be_float32(rng):
    a, b = (smelt.from_numpy(floats(rng, *s)).to("bfloat16") for s in ((5, 40), (40, 6)))
    out = np.zeros((5, 6), F32)
    kernels.gemm(a, b, out=out)
    exact, size = product(a.float().numpy(), b.float().numpy())
    close(out, exact, size, 40)
    assert kernels.gemm(a, b).dtype == "bfloat16"
    kernels.gemm(a, b, accumulate=True, out=out)
    close(out, 2 * exact, size, 90)
    total = np.zeros(40, F32)
    kernels.reduce(a, "sum", 0, out=total)
    close(total, a.to("float64").numpy().sum(0), np.abs(a.to("float64").numpy()).sum(0), 5)
    x, w = smelt.from_numpy(floats(rng, 1, 5, 5, 3)).to("bfloat16"), smelt.ones(2, 3, 3, 3, dtype="bfloat16")
    dy = kernels.conv2d(x, w)
    dw, dx = np.zeros((2, 3, 3, 3), F32), np.zeros((1, 5, 5, 3), F32)
    kernels.conv2d_backward_weight(x, dy, (3, 3), out=dw)
    kernels.conv2d_backward_input(dy, w, (5, 5), out=dx)
    for got, narrow in (
        (dw, kernels.conv2d_backward_weight(x, dy, (3, 3))),
        (dx, kernels.conv2d_backward_input(dy, w, (5, 5))),
    ):
        same(smelt.from_numpy(got).to("bfloat16"), narrow)  # the same sums, rounded
    with pytest.raises(TypeError, match="gemm: c must be bfloat16, got float64"):
        kernels.gemm(a, b, out=np.zeros((5, 6)))
    with pytest.raises(TypeError, match="gemm: c must be float32, got bfloat16"):
        kernels.gemm(a.float(), b.float(), out=smelt.zeros(5, 6, dtype="bfloat16"))


def test_memory_from_dlpack_must_be_aligned():
    whole = np.zeros(4 * (5 << 20) + 1, np.uint8)
    crooked = whole[1:].view(F32)
    with pytest.raises(
        ValueError, match="fill: out cannot be used where it lies: the memory must be aligned to 4 bytes"
    ):
        kernels.fill(Exporter(crooked), 1.0)
    with pytest.raises(BufferError, match="aligned to 4 bytes"):
        smelt.from_dlpack(Exporter(crooked), copy=False)
    crooked[7] = 3
    copied = smelt.from_dlpack(Exporter(crooked))
    copied += 1
    assert copied[7].item() == 4 and crooked[7] == 3
    plain = np.zeros(100, F32)
    kernels.fill(Exporter(plain), 1.0)
    assert (plain == 1).all()


def test_read_only_arrays_are_inputs():
    a = A.copy()
    a.flags.writeable = False
    same(kernels.gemm(a, B), A @ B)


def test_arrays_of_jax_are_not_written():
    kind = type("Array", (Exporter,), {"__module__": "jaxlib._jax"})
    same(kernels.gemm(kind(A), kind(B)), A @ B)
    with pytest.raises(ValueError, match="gemm: c cannot be written: arrays of JAX never change"):
        kernels.gemm(A, B, out=kind(np.zeros((2, 4), F32)))


def test_masked_arrays_and_numbers_are_refused():
    with pytest.raises(ValueError, match="gemm: a has a mask"):
        kernels.gemm(np.ma.masked_array(A), B)
    with pytest.raises(TypeError, match="sort: x must be a NumPy array or have __dlpack__, got float32"):
        kernels.sort(F32(3))
    with pytest.raises(TypeError, match="gemm: impl must be a name, got 3"):
        kernels.gemm(A, B, impl=3)


def test_read_only_arrays_are_refused_for_results():
    c = np.zeros((2, 4), F32)
    c.flags.writeable = False
    with pytest.raises(ValueError, match="gemm: c cannot be used where it lies"):
        kernels.gemm(A, B, out=c)
    assert not c.any()


# ------------------------------------------------------------------------------------------------ kernels of one's own

SOURCE = """
#include "core/kernels.h"
using namespace smelt;
extern "C" Status plain(const GemmArgs& g, Context& context) {
  float* total = static_cast<float*>(context.workspace);
  for (int64_t i = 0; i < g.m; ++i)
    for (int64_t j = 0; j < g.n; ++j) {
      *total = 0;
      for (int64_t p = 0; p < g.k; ++p)
        *total += static_cast<const float*>(g.a)[i * g.lda + p] * static_cast<const float*>(g.b)[p * g.ldb + j];
      static_cast<float*>(g.c)[i * g.ldc + j] = 1000 + *total;
    }
  return Status::ok;
}
extern "C" size_t room(const GemmArgs&, int) { return 64; }
extern "C" bool fits(const GemmArgs& g, Device) { return g.dtype == DType::float32 && !g.transpose_a && !g.transpose_b; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = os.environ.get("CXX") or (sysconfig.get_config_var("CXX") or "c++").split()[0]
    if not shutil.which(compiler):
        compiler = shutil.which("c++") or shutil.which("g++")
    if not compiler:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "plain.cpp").write_text(SOURCE)
    out = folder / "plain.so"
    command = [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{kernels.include_dir()}"]
    subprocess.run([*command, str(folder / "plain.cpp"), "-o", str(out)], check=True)
    return out


# Run in a process of its own: a registered kernel stays.
OWN_KERNEL = """
import sys
import numpy as np
import pytest
import smelt
from smelt import kernels

library = sys.argv[1]
A, B = np.ones((2, 3), "float32"), np.ones((3, 4), "float32")
preferred = kernels.impls("gemm")[0]
kernels.register("gemm", "plain_gemm", library, "plain", workspace="room", supports="fits")
assert kernels.impls("gemm")[-1] == "plain_gemm" and kernels.impls("gemm")[0] == preferred
np.testing.assert_array_equal(kernels.gemm(A, B, impl="plain_gemm"), np.full((2, 4), 1003, "float32"))
with kernels.use("plain_gemm"):
    assert smelt.matmul(*map(smelt.from_numpy, (A, B))).numpy()[0, 0] == 1003
assert smelt.matmul(*map(smelt.from_numpy, (A, B))).numpy()[0, 0] == 3  # never chosen unasked
with pytest.raises(RuntimeError, match="gemm: no cpu kernel for these arguments"):
    kernels.gemm(A.astype(float), B.astype(float), impl="plain_gemm")
with pytest.raises(ValueError, match="slot 'gemm' already has a kernel named 'plain_gemm'"):
    kernels.register("gemm", "plain_gemm", library, "plain")
with pytest.raises(AttributeError, match="must have an extern .C. function 'none'"):
    kernels.register("gemm", "other", library, "none")
with pytest.raises(ValueError, match="no slot is named"):
    kernels.register("no", "other", library, "plain")
assert "other" not in kernels.impls("gemm")
"""


def test_a_kernel_of_ones_own(library):
    done = run([sys.executable, "-c", OWN_KERNEL, str(library)])
    assert done.returncode == 0, done.stderr
