"""What the words of csrc/cuda/words.cuh do on the emulator: as the PTX ISA says, written out in NumPy, and, where a GPU has
written its bits to tests/fixtures/words.json (`make gpu-check STAGE=calibrate`), bit for bit as there."""

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest

from smelt import _core

FIXTURE = Path(__file__).parent / "fixtures" / "words.json"
NAMES = [
    "shuffles",
    "ldmatrix",
    "ldmatrix_transposed",
    "mma_bfloat16",
    "mma_float16",
    "mma_tf32",
    "to_tf32",
    "cp_async",
    "bulk_copy",
]
pytestmark = pytest.mark.skipif(
    bool(_core.why_unavailable("emu")), reason="needs a build with -DSMELT_EMU=ON (device emu)"
)
LANES = np.arange(32)


def words(name):
    lib = ctypes.CDLL(str(Path(_core.__file__).resolve().parent / "_emu.so"))
    lib.smelt_emu_words.restype = ctypes.c_char_p
    lib.smelt_emu_words.argtypes = [ctypes.c_int, ctypes.c_void_p]
    out = np.full((32, 8), 0xDEAD, np.uint32)
    error = lib.smelt_emu_words(NAMES.index(name), out.ctypes.data)
    assert error is None, error
    return out


@pytest.fixture(scope="module")
def given():
    state, out = 1, []
    for _ in range(256):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append(state)
    return np.array(out, np.uint32).reshape(32, 8)


def test_names():
    lib = ctypes.CDLL(str(Path(_core.__file__).resolve().parent / "_emu.so"))
    lib.smelt_emu_word_name.restype = ctypes.c_char_p
    names = [lib.smelt_emu_word_name(i) for i in range(len(NAMES) + 1)]
    assert [n.decode() for n in names[:-1]] == NAMES
    assert names[-1] is None


def test_shuffles(given):
    got, x = words("shuffles"), given[:, 0]
    assert (got[:, 0] == x[5]).all()
    assert (got[:, 1] == x[::-1]).all()
    assert (got[:, 2] == x[LANES ^ 1]).all()
    assert (got[:, 3] == x[LANES ^ 16]).all()
    assert (got[:, 4] == x[np.maximum(LANES - 1, 0)]).all()
    assert (got[:, 5] == np.where(LANES >= 7, x[LANES - 7], x)).all()
    assert (got[:, 6] == sum(int(v & 1) << i for i, v in enumerate(given[:, 1]))).all()
    assert (got[:, 7] == [bin(v).count("1") for v in given[:, 2]]).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(given, transposed):
    # Row r of matrix m is at the address that lane 8 m + r gave; lane l receives elements (l / 4, 2 (l % 4)) and the next.
    rows = given[::-1, 4:].copy().view(np.uint16).reshape(4, 8, 8)
    matrices = rows.swapaxes(1, 2) if transposed else rows
    expected = np.ascontiguousarray(matrices).view(np.uint32).reshape(4, 32).T
    got = words("ldmatrix_transposed" if transposed else "ldmatrix")
    assert (got[:, :4] == expected).all()


def small(bits, salt):
    return ((bits.astype(np.uint64) + salt) % 2**32 % 15).astype(int) - 7


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "tf32"])
def test_mma(given, kind):
    # PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type" and "mma.m16n8k8" for .tf32.
    depth, row, column = (8 if kind == "tf32" else 16), LANES // 4, LANES % 4
    a, b = np.zeros((16, depth)), np.zeros((depth, 8))
    for r in range(4):
        for half in range(1 if kind == "tf32" else 2):
            values = small(given[:, r] if half == 0 else given[:, r] // 16, 3)
            step = column + r // 2 * 4 if kind == "tf32" else column * 2 + half + r // 2 * 8
            a[row + r % 2 * 8, step] = values
    for r in range(2):
        for half in range(1 if kind == "tf32" else 2):
            values = small(given[:, 4 + r] if half == 0 else given[:, 4 + r] // 16, 5)
            step = column + r * 4 if kind == "tf32" else column * 2 + half + r * 8
            b[step, row] = values
    product = a @ b
    got = words(f"mma_{kind}")[:, :4].copy().view(np.float32)
    for i in range(4):
        expected = product[row + i // 2 * 8, column * 2 + i % 2] + LANES * 4 + i
        assert (got[:, i] == expected).all()


def test_to_tf32(given):
    middle = np.array([0x1000, 0x0FFF, 0x1001, 0], np.uint32)[np.arange(8) % 4]
    bits = (np.uint32(0x3F000000) + (given & np.uint32(0x80FFE000))) | middle
    bits[:, 7] = np.array([0x7F800001, 0xFF800000, 0x7F7FFFFF, 0x80000000], np.uint32)[LANES % 4]
    expected = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    expected[LANES % 4 == 0, 7] = 0x7FFFE000  # a NaN stays one
    assert (words("to_tf32") == expected).all()


def test_copies(given):
    expected = np.zeros((32, 4), np.uint32)
    for lane in LANES:
        piece = given[lane, :4].tobytes()[: lane % 17]
        expected[lane] = np.frombuffer(piece.ljust(16, b"\0"), np.uint32)
    rest = np.where((LANES % 2)[:, None], given[:, 1:4], 0)
    expected = np.concatenate([expected, given[:, 7:], rest], 1)
    assert (words("cp_async") == expected[::-1]).all()
    assert (words("bulk_copy") == given).all()


@pytest.mark.skipif(not FIXTURE.exists(), reason="needs tests/fixtures/words.json, which a GPU writes")
@pytest.mark.parametrize("name", NAMES)
def test_bits_of_a_gpu(name):
    assert (words(name).ravel() == json.loads(FIXTURE.read_text())[name]).all()
