"""Trained weights have the same bits for any number of threads, and for runs that were killed and resumed."""

import hashlib
import json
import random
import signal
import sys
import time

import pytest
import safetensors.numpy

from tests.processes import SMELT, run, start

TRAIN = ["train", "digits", "--epochs", "2", "--checkpoint-every", "7", "--quiet"]
STEPS = 42  # 1,437 rows for training, a tenth of them for validation, batches of 64: 21 steps an epoch
# The command line in a process that kills itself at the nth fsync of a checkpoint or its folder; of the checkpoint only a
# share of the bytes is on the disk then.
DIES_WRITING = """
import os, signal, sys
from smelt.cli import main

count, share = int(sys.argv[1]), float(sys.argv[2])
fsync = os.fsync

def die(file):
    global count
    path = os.readlink(f"/proc/self/fd/{file}")
    if "/checkpoints" in path:
        count -= 1
        if count == 0:
            if not os.path.isdir(path):
                os.ftruncate(file, int(os.fstat(file).st_size * share))
            os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)

os.fsync = die
sys.exit(main(sys.argv[3:]))
"""


def fingerprint(folder):
    """sha256 of the trained weights, computed from the file with the safetensors library alone."""
    digest = hashlib.sha256()
    for name, array in sorted(safetensors.numpy.load_file(folder / "model.safetensors").items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def rows(folder):
    """The history without what the clock says."""
    return [
        {k: v for k, v in row.items() if k != "seconds"} for row in json.loads((folder / "history.json").read_text())
    ]


@pytest.fixture(scope="module")
def no_pictures(tmp_path_factory):
    """A folder in which Matplotlib is missing: importing it and drawing would take most of a run's time here."""
    folder = tmp_path_factory.mktemp("without-matplotlib")
    (folder / "matplotlib.py").write_text("raise ImportError('not here')\n")
    return str(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, no_pictures):
    """A run that nothing disturbed: its weights, its history, and how long it took."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    begun = time.monotonic()
    finish(folder, no_pictures)
    seconds = time.monotonic() - begun
    assert rows(folder)[-1]["step"] == STEPS
    return fingerprint(folder), rows(folder), seconds


def finish(folder, no_pictures, *options, **variables):
    done = run([*SMELT, *TRAIN, "--out", str(folder), *options], PYTHONPATH=no_pictures, **variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", ["1", "2", "3", "5"])
def test_threads_do_not_change_the_weights(threads, whole, no_pictures, tmp_path):
    finish(tmp_path / "run", no_pictures, SMELT_NUM_THREADS=threads)
    assert fingerprint(tmp_path / "run") == whole[0]
    assert rows(tmp_path / "run") == whole[1]


def test_seed_changes_the_weights(whole, no_pictures, tmp_path):
    finish(tmp_path / "run", no_pictures, "--seed", "1")
    assert fingerprint(tmp_path / "run") != whole[0]


def check_resumed(folder, whole, no_pictures):
    finish(folder, no_pictures, *(["--resume"] if folder.exists() else []))  # else it was killed before it began
    assert fingerprint(folder) == whole[0]
    assert rows(folder) == whole[1]
    assert [p.name for p in folder.rglob("*.tmp")] == []
    assert len(list((folder / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("moment", range(12))
def test_killed_at_a_random_moment(moment, whole, no_pictures, tmp_path):
    folder = tmp_path / "run"
    process = start([*SMELT, *TRAIN, "--out", str(folder)], variables={"PYTHONPATH": no_pictures})
    # One moment in each twelfth of the time that a whole run takes.
    time.sleep(whole[2] * (moment + random.Random(moment).random()) / 12)
    process.kill()
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0)
    check_resumed(folder, whole, no_pictures)


@pytest.mark.parametrize("moment", range(8))
def test_killed_while_a_checkpoint_is_written(moment, whole, no_pictures, tmp_path):
    folder = tmp_path / "run"
    chance = random.Random(moment)
    # Two fsyncs for each of the six checkpoints: of the file before it gets its name, and of the folder after that.
    count = chance.randrange(STEPS // 7 * 2) + 1
    share = chance.choice([0, chance.random(), 1])
    command = [sys.executable, "-c", DIES_WRITING, str(count), str(share), *TRAIN, "--out", str(folder)]
    done = run(command, PYTHONPATH=no_pictures)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [p.name for p in (folder / "checkpoints").iterdir() if p.suffix == ".tmp"]
    assert len(left) == count % 2, "the process was to die before the new name, or after it"
    check_resumed(folder, whole, no_pictures)
