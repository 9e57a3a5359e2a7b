"""Winograd's convolutions: as exact as promised against the plain kernel, in every option, chosen by shape alone."""

import re

import numpy as np
import pytest

import smelt
from smelt import kernels

# n, h, w, c, k, padding: edges that whole tiles don't meet, channels beyond whole vectors, few and many tiles, panels of
# filters beyond the number of tiles, several rounds of the weight gradient.
SHAPES = [
    (2, 13, 17, 64, 64, 1),
    (1, 32, 32, 256, 40, 1),
    (9, 9, 10, 33, 70, 0),
    (9, 7, 7, 100, 96, 2),
    (30, 4, 4, 96, 200, 1),
    (4, 24, 24, 25, 24, (0, 1)),
    (2, 40, 41, 130, 140, 1),
]
FACTOR = {"winograd4": 3.0, "winograd2": 1.0}  # the weight gradient has winograd4 alone


def draw(rng, shape):
    n, h, w, c, k, padding = shape
    rows, columns = padding if isinstance(padding, tuple) else (padding, padding)
    p, q = h + 2 * rows - 2, w + 2 * columns - 2
    x, wt, dy = (rng.normal(size=s).astype(np.float32) for s in [(n, h, w, c), (k, 3, 3, c), (n, p, q, k)])
    return x, wt, dy, (rows, columns), (p, q)


def exact(x, wt, dy, padding, size):
    """Result and gradients in float64, tap by tap."""
    (rows, columns), (p, q) = padding, size
    x, wt, dy = (a.astype(np.float64) for a in (x, wt, dy))
    padded = np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    y, dpadded, dw = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(wt.shape)
    for i in range(3):
        for j in range(3):
            window = padded[:, i : i + p, j : j + q]
            y += window @ wt[:, i, j].T
            dpadded[:, i : i + p, j : j + q] += dy @ wt[:, i, j]
            dw[:, i, j] = np.einsum("npqk,npqc->kc", dy, window, optimize=True)
    return y, dpadded[:, rows : rows + x.shape[1], columns : columns + x.shape[2]], dw


def run(impl, x, wt, dy, padding, **more):
    options = {"padding": padding, "impl": impl}
    y = kernels.conv2d(x, wt, **options, **more)
    dx = kernels.conv2d_backward_input(dy, wt, x.shape[1:3], **options)
    if impl == "winograd2":
        return y, dx
    return y, dx, kernels.conv2d_backward_weight(x, dy, (3, 3), **options)


def rms(a):
    return np.sqrt(np.mean(np.square(a, dtype=np.float64)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_within_a_factor_of_the_plain_kernel(isa, rng, shape):
    *given, padding, size = draw(rng, shape)
    wanted = exact(*given, padding, size)
    errors = {}
    for impl in ("direct", *FACTOR):
        with kernels.trace() as names:
            got = run(impl, *given, padding)
        assert all(name.endswith(impl) for name in names), names
        errors[impl] = [rms(g - e) / rms(e) for g, e in zip(got, wanted, strict=False)]
    for impl, factor in FACTOR.items():
        for what, error, plain in zip(("y", "dx", "dw"), errors[impl], errors["direct"], strict=False):
            # The rms of a finite sample of errors is itself known to a few percent.
            assert error <= 1.05 * factor * plain, f"{what}: {impl} {error:.3g}, direct {plain:.3g}"


@pytest.mark.parametrize("impl", FACTOR)
def test_bias_activation_and_accumulation(isa, rng, impl):
    x, wt, dy, padding, _ = draw(rng, (3, 14, 15, 40, 72, 1))
    bias = rng.normal(size=72).astype(np.float32)
    y, *gradients = run(impl, x, wt, dy, padding)
    fused = kernels.conv2d(x, wt, bias, padding=padding, activation="relu", impl=impl)
    np.testing.assert_array_equal(fused, np.maximum(y + bias, 0))
    held = [rng.normal(size=a.shape).astype(np.float32) for a in gradients]
    sums = [a.copy() for a in held]
    options = {"padding": padding, "accumulate": True, "impl": impl}
    kernels.conv2d_backward_input(dy, wt, (14, 15), out=sums[0], **options)
    if impl == "winograd4":
        kernels.conv2d_backward_weight(x, dy, (3, 3), out=sums[1], **options)
    for got, before, added in zip(sums, held, gradients, strict=True):
        np.testing.assert_array_equal(got, before + added)


@pytest.mark.parametrize("impl", FACTOR)
@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
def test_any_number_of_threads_gives_the_same_bits(isa, rng, impl, shape):
    *given, padding, _ = draw(rng, shape)
    before, results = smelt.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            smelt.set_num_threads(threads)
            results.append([a.tobytes() for a in run(impl, *given, padding)])
    finally:
        smelt.set_num_threads(before)
    assert all(r == results[0] for r in results)


@pytest.mark.parametrize("impl", FACTOR)
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_bfloat16_is_rounded_once(isa, rng, impl, shape):
    """Halves are widened on the way in and rounded on the way out: between stand the float32 kernel's numbers."""
    *given, padding, _ = draw(rng, shape)
    halves = [smelt.tensor(a).astype("bfloat16") for a in given]
    try:
        with kernels.trace() as names:
            got = run(impl, *halves, padding)
    except ValueError:
        pytest.skip(f"no bfloat16 {impl} at this level")
    names = [name for name in names if not name.endswith("fill")]
    assert all(name.endswith(impl) for name in names), names
    level = names[0].split("_")[0]
    if level == "avx512bf16":  # float32's kernel has other tiles in its products
        wanted = exact(*[a.astype("float32").numpy() for a in halves], padding, draw(rng, shape)[-1])
        for g, e in zip(got, wanted, strict=False):
            assert (np.abs(g.astype("float32").numpy() - e) <= 2.0**-8 * np.abs(e) + 1e-5 * np.abs(e).max()).all()
        return
    wanted = run(impl, *[a.astype("float32").numpy() for a in halves], padding)
    for g, e in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(
            g.astype("float32").numpy(), smelt.tensor(e).astype("bfloat16").astype("float32").numpy()
        )


def test_a_nan_stays_in_its_picture(rng):
    x, wt, dy, padding, _ = draw(rng, (3, 16, 16, 32, 32, 1))
    clean = run(None, x, wt, dy, padding)
    x[1, 5, 6, 7] = np.nan
    y = kernels.conv2d(x, wt, padding=padding)
    assert np.isnan(y[1, 4:7, 5:8]).all()
    np.testing.assert_array_equal(y[[0, 2]], clean[0][[0, 2]])
    plain = kernels.conv2d(x, wt, padding=padding, impl="direct")
    assert np.isnan(plain).sum() == 9 * 32


def test_the_choice_is_by_shape_alone(rng):
    def chosen(shape, **options):
        with kernels.trace() as names:
            kernels.conv2d(rng.normal(size=shape[0]).astype(np.float32), np.ones(shape[1], np.float32), **options)
        return names[0].rpartition("_")[2]

    assert chosen(((2, 32, 32, 32), (32, 3, 3, 32)), padding=1) == "winograd4"
    assert chosen(((8, 6, 6, 32), (32, 3, 3, 32)), padding=1) == "winograd2"  # 9 tiles of 16 places against 4 of 36
    for shape, options in [
        (((2, 32, 32, 8), (32, 3, 3, 8)), {}),
        (((2, 32, 32, 32), (32, 3, 3, 32)), {"stride": 2}),
        (((2, 32, 32, 32), (32, 3, 3, 32)), {"dilation": 2}),
        (((2, 32, 32, 32), (32, 5, 5, 32)), {}),
        (((2, 32, 32, 64), (32, 3, 3, 32)), {"groups": 2}),
        (((1, 8, 8, 32), (32, 3, 3, 32)), {}),
    ]:
        assert chosen(shape, **options) in ("direct", "planar")


def test_a_kernel_that_does_not_take_a_layer_names_those_that_do():
    x, w = smelt.ones(1, 16, 16, 32), smelt.ones(32, 3, 3, 32)
    with kernels.use("winograd4"), pytest.raises(RuntimeError) as error:
        smelt.conv2d(x, w, stride=2)
    said = re.fullmatch(
        "conv2d: no cpu kernel for these arguments in slot 'conv2d' with impl='winograd4'; these take them: (.*)",
        str(error.value),
    )
    assert said is not None, error.value
    for name in said[1].split(", "):
        kernels.conv2d(x, w, stride=2, impl=name)
    assert {n for n in kernels.impls("conv2d") if n.endswith("portable")} <= set(said[1].split(", "))
