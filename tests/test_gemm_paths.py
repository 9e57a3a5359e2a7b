"""Every way through the matrix product: rows, dots, few rows, blocks; whole products by threads; all options together."""

import numpy as np
import pytest

import smelt
from smelt import kernels
from tests.cases import COMPUTE, UNIT
from tests.conftest import isa_levels

# (batch, m, n, k): around the limits of the ways, and of the tiles, strips and blocks within them.
SHAPES = [
    (1, 1, 1, 1),
    (1, 1, 2050, 70),  # a row of sums in more than one piece
    (1, 5, 67, 259),
    (1, 6, 1030, 33),
    (1, 7, 40, 300),
    (1, 24, 61, 257),
    (1, 25, 61, 257),
    (1, 500, 20, 300),  # few columns
    (1, 500, 23, 256),
    (1, 100, 57, 700),
    (1, 191, 330, 300),
    (1, 193, 70, 300),
    (1, 400, 1100, 20),  # columns in more than one block
    (1, 200, 530, 270),  # and depths too
    (5, 3, 17, 300),
    (40, 16, 16, 16),
    (300, 5, 9, 3),  # batches in more than one piece of work
    (1, 64, 64, 64),  # tiles in place: the largest, and beyond
    (1, 65, 63, 64),
    (1, 64, 64, 65),
    (7, 13, 45, 20),
    (1, 273, 15, 31),
    (3, 200, 150, 80),
    (1, 4, 6, 0),
    (1, 300, 300, 0),
]
DTYPES = [
    ("float32", "float32"),
    ("float64", "float64"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("float16", "float16"),
]


def stored(array, transpose, dtype):
    array = np.ascontiguousarray(array.swapaxes(-1, -2) if transpose else array)
    return smelt.from_numpy(array).to(dtype)


def values(t):
    return t.to("float64").numpy()


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("transposes", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_all_options_together(rng, shape, transposes, level):
    batch, m, n, k = shape
    ta, tb = (letter == "t" for letter in transposes)
    lead = (batch,) if batch > 1 else ()
    a, b = rng.normal(size=(*lead, m, k)), rng.normal(size=(*lead, k, n))
    bias, before, added_to = rng.normal(size=n), rng.normal(size=(*lead, m, n)), rng.normal(size=(*lead, m, n))
    for dtype, result in DTYPES:
        given = [stored(a, ta, dtype), stored(b, tb, dtype), stored(bias, False, dtype)]
        wide_a, wide_b, wide_bias = map(values, given)
        wide_a, wide_b = (w.swapaxes(-1, -2) if t else w for w, t in ((wide_a, ta), (wide_b, tb)))
        product, size = wide_a @ wide_b, np.abs(wide_a) @ np.abs(wide_b)
        u, rounding = UNIT[COMPUTE[dtype]], 0.0 if result == COMPUTE[dtype] else UNIT[result]
        residual = stored(added_to, False, result)
        every = {"alpha": -0.5, "bias": given[2], "residual": residual, "activation": "relu", "accumulate": True}
        for options in ({}, every):
            out = stored(before, False, result)
            scaled, terms = options.get("alpha", 1.0), [wide_bias, values(residual), values(out)] if options else [0.0]
            exact = scaled * product + sum(terms)
            if options:
                exact = np.maximum(exact, 0)
            bound = (k + 5) * u * (abs(scaled) * size + sum(map(np.abs, terms)))
            if options:  # a half is rounded before the residual is added, too
                bound = bound + rounding * (np.abs(scaled * product + terms[0] + terms[2]) + bound)
            bound = bound + rounding * (np.abs(exact) + bound) + (2.0**-25 if result == "float16" else 0)
            with kernels.isa(level):
                kernels.gemm(given[0], given[1], transpose_a=ta, transpose_b=tb, out=out, **options)
            error = np.abs(values(out) - exact)
            assert np.all(error <= bound), (
                f"{dtype} to {result} {options.keys()}: {(error - bound).max():.3g} above the bound"
            )


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (5, 2050, 7), (24, 61, 257), (193, 70, 300), (700, 1100, 20), (0, 5, 3), (9, 5, 0)]
)
def test_column_sums_are_those_of_what_was_written(rng, shape, level):
    m, n, k = shape
    for dtype, result in DTYPES:
        a, b = stored(rng.normal(size=(m, k)), False, dtype), stored(rng.normal(size=(n, k)), False, dtype)
        wide = "float64" if dtype == "float64" else "float32"
        found = []
        for threads in (1, 2, 3):
            out, sums = stored(np.full((m, n), np.nan), False, result), np.full(n, np.nan, wide)
            smelt.set_num_threads(threads)
            with kernels.isa(level):
                kernels.gemm(a, b, transpose_b=True, activation="silu", out=out, column_sums=sums)
            found.append((values(out).tobytes(), sums.tobytes()))
        assert found[0] == found[1] == found[2]
        exact, size = values(out).sum(axis=0), np.abs(values(out)).sum(axis=0)
        assert np.all(np.abs(sums - exact) <= (m + 1) * UNIT[wide] * size), f"{dtype} to {result}"


def test_what_epilogues_refuse():
    a, b = np.ones((2, 3, 4), np.float32), np.ones((2, 4, 5), np.float32)
    with pytest.raises(ValueError, match=r"gemm: column_sums are those of a single product, got a batch of 2"):
        kernels.gemm(a, b, column_sums=np.empty(5, np.float32))
    with pytest.raises(ValueError, match=r"gemm: residual must be \(M, N\) = \(3, 5\), got \(3, 4\)"):
        kernels.gemm(a[0], b[0], residual=np.ones((3, 4), np.float32))
    with pytest.raises(TypeError, match="gemm: column_sums must be float32, got float64"):
        kernels.gemm(a[0], b[0], column_sums=np.empty(5))
    out = np.empty((3, 5), np.float32)
    with pytest.raises(ValueError, match="overlap"):
        kernels.gemm(a[0], b[0], out=out, column_sums=out[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("transposes", ["nn", "nt", "tn", "tt"])
def test_the_same_bits_for_any_number_of_threads(rng, transposes, dtype):
    ta, tb = (letter == "t" for letter in transposes)
    threads = smelt.get_num_threads()
    for m, n, k in (
        (1, 2050, 700),
        (5, 3000, 301),
        (20, 900, 400),
        (900, 20, 400),
        (100, 330, 700),
        (250, 70, 600),
        (700, 300, 90),
    ):
        a = stored(rng.normal(size=(m, k)), ta, dtype)
        b = stored(rng.normal(size=(k, n)), tb, dtype)
        results = []
        try:
            for count in (1, 2, 3, 5):
                smelt.set_num_threads(count)
                results.append(values(kernels.gemm(a, b, transpose_a=ta, transpose_b=tb)))
        finally:
            smelt.set_num_threads(threads)
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 50, 300), (5, 40, 30), (20, 50, 300), (60, 40, 30), (300, 40, 30)])
def test_nan_and_infinity_stay_in_their_rows_and_columns(rng, m, n, k):
    for tb in (False, True):
        a, b = (rng.normal(size=s).astype(np.float32) for s in ((m, k), (k, n)))
        a[m // 2, 7], b[3, n // 3] = np.nan, np.inf
        with np.errstate(invalid="ignore"):
            expected = a.astype(np.float64) @ b.astype(np.float64)
        got = values(kernels.gemm(stored(a, False, "float32"), stored(b, tb, "float32"), transpose_b=tb))
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))
