"""Shared by all tests: doctest names, instruction sets, real data, and no state left behind."""

import os
from pathlib import Path

import numpy as np
import pytest

import smelt
from smelt import _core, kernels


def isa_levels():
    """The instruction sets of this machine, lowest first."""
    order = ["portable", "avx2", "avx512", "avx512bf16", "amx"]
    return order[: order.index(_core.max_isa()) + 1]


def devices():
    """The devices beside the CPU that are here; ``emu`` runs the CUDA kernels in development builds."""
    return [name for name in ("emu", "cuda") if not _core.why_unavailable(name)]


def is_whole(level):
    """Whether an instruction set, or that of a kernel's name, has kernels for every slot; others add products of bfloat16."""
    return level.split("_", 1)[0] in ("portable", "avx2", "avx512")


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", isa_levels(), indirect=True)


@pytest.fixture
def isa(request):
    """Runs the test once for every instruction set of the machine."""
    with kernels.isa(request.param):
        yield request.param


@pytest.fixture
def rng(request):
    """Random numbers that depend on the test's name alone."""
    return np.random.default_rng(abs(hash_name(request.node.name)))


def hash_name(name):
    import zlib

    return zlib.crc32(name.encode())


@pytest.fixture(autouse=True)
def clean_state():
    """Every test starts from seed 0 with the tape on, and leaves threads and settings as they were."""
    threads = smelt.get_num_threads()
    smelt.manual_seed(0)
    yield
    assert smelt.is_grad_enabled(), "the test left the tape off"
    assert not _core.dry_run_active(), "the test left check mode on"
    assert _core.forced_impl() == "", "the test left a kernel forced"
    smelt.set_num_threads(threads)


@pytest.fixture
def data_folder():
    """The folder with real datasets; the test is skipped where there is none."""
    root = os.environ.get("SMELT_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("SMELT_DATA is not set to a folder with datasets")
    return Path(root)
