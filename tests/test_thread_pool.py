"""The thread pool: forked and spawned processes, nesting, more threads than cores, several Python threads, errors."""

import sys
import threading

import numpy as np
import pytest

import smelt
from smelt import losses, nn, optim
from tests.processes import python, run

# Long enough for many chunks in every kernel that is used here.
N = 1 << 18


def work(seed=0):
    """Sums, a product and an elementwise pass that use the pool; their bits."""
    rng = np.random.default_rng(seed)
    x = smelt.from_numpy(rng.normal(size=N).astype(np.float32))
    a = smelt.from_numpy(rng.normal(size=(200, 150)).astype(np.float32))
    return ((x * 1.5).tanh().sum() + x.var()).numpy().tobytes() + (a @ a.T).numpy().tobytes()


def train(seed, steps=6):
    """The weights after some steps of a network with convolution, batch norm and linear layers."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Conv2d(2, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 5))
    for parameter in model.parameters():
        with smelt.no_grad():
            parameter.copy_(smelt.from_numpy(rng.normal(size=parameter.shape).astype(np.float32) * 0.1))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, clip_norm=1.0)
    for _ in range(steps):
        x = smelt.from_numpy(rng.normal(size=(32, 8, 8, 2)).astype(np.float32))
        y = smelt.from_numpy(rng.integers(0, 5, 32))
        loss = losses.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return b"".join(t.numpy().tobytes() for t in model.state_dict().values())


def in_threads(*functions):
    """Runs functions at once, each in a Python thread of its own; gives what they return."""
    results = [None] * len(functions)
    gate = threading.Barrier(len(functions))

    def call(i):
        gate.wait()
        try:
            results[i] = functions[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 17, 64])
def test_any_number_of_threads_gives_the_same_bits(threads):
    """More threads than cores among them."""
    smelt.set_num_threads(1)
    expected = work(), train(0)
    smelt.set_num_threads(threads)
    assert smelt.get_num_threads() == threads
    assert (work(), train(0)) == expected


def test_two_threads_train_two_models_as_if_alone():
    smelt.set_num_threads(3)
    alone = [train(1), train(2)]
    assert alone[0] != alone[1]
    for _ in range(3):
        assert in_threads(lambda: train(1), lambda: train(2)) == alone


def test_many_threads_compute_at_once():
    smelt.set_num_threads(4)
    expected = [work(seed) for seed in range(6)]
    assert in_threads(*(lambda seed=seed: work(seed) for seed in range(6))) == expected


def test_changing_the_number_while_others_compute():
    expected = work()
    stop = threading.Event()

    def change():
        try:
            for i in range(60):
                smelt.set_num_threads(1 + i % 5)
        finally:
            stop.set()

    def compute():
        results = {work()}
        while not stop.is_set():
            results.add(work())
        return results

    _, first, second = in_threads(change, compute, compute)
    assert first == second == {expected}


@pytest.mark.parametrize("number", [0, -1, 257])
def test_a_number_out_of_range_is_an_error_and_changes_nothing(number):
    smelt.set_num_threads(3)
    with pytest.raises(ValueError, match=rf"set_num_threads: the number must be from 1 to 256, got {number}"):
        smelt.set_num_threads(number)
    assert smelt.get_num_threads() == 3


def test_nested_calls_run_inline():
    """Python that runs inside backward uses kernels of its own, on the same thread or a new one."""
    smelt.set_num_threads(3)
    expected = work()
    inside = []

    class Nested(smelt.Function):
        @staticmethod
        def forward(context, x):
            inside.append(work())
            return x * 2

        @staticmethod
        def backward(context, grad):
            inside.append(work())
            inside.extend(in_threads(work))
            return grad * 2

    x = smelt.ones(N).requires_grad_()
    Nested.apply(x).sum().backward()
    assert inside == [expected] * 3
    assert (x.grad.numpy() == 2).all()


def test_the_pool_works_on_after_an_error():
    """A kernel that refuses its input in the middle of the rows, and an exception from a hook in backward."""
    smelt.set_num_threads(3)
    expected = work()
    labels = np.zeros(5000, np.int64)
    labels[4321] = 7
    for _ in range(3):
        with pytest.raises(IndexError, match=r"labels must be in \[0, 5\), got 7 at position 4321"):
            losses.cross_entropy(smelt.zeros(5000, 5), smelt.from_numpy(labels))
        assert work() == expected

    class Broken(smelt.Function):
        @staticmethod
        def forward(context, x):
            return x + 0

        @staticmethod
        def backward(context, grad):
            raise KeyError("mine")

    x = smelt.ones(N).requires_grad_()
    with pytest.raises(KeyError, match="mine"):
        (Broken.apply(x) * 2).sum().backward()
    assert work() == expected
    with pytest.raises(IndexError):  # in one thread, while the other one computes
        in_threads(lambda: losses.cross_entropy(smelt.zeros(5000, 5), smelt.from_numpy(labels)), work)
    assert work() == expected


def test_default_number_obeys_variable_and_affinity():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import smelt; print(smelt.get_num_threads())"
    assert python(code, SMELT_NUM_THREADS="7") == "7\n"
    done = run([sys.executable, "-c", f"import os; os.environ.pop('SMELT_NUM_THREADS', 0); {code}"])
    assert done.stdout == "1\n", done.stderr


# ----------------------------------------------------------------------------------------------------------- processes

# Programs of their own: fork() in a process with threads is what pytest's own process should not do.
PROGRAM = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and newer warn of every fork in a process with threads
from tests.test_thread_pool import in_threads, train, work
import smelt

def child(task):
    pid = os.fork()
    if pid == 0:
        try:
            task()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"

def same():
    assert work() == expected

smelt.set_num_threads(3)
expected = work()
"""
FORKS = {
    "the child computes, the parent goes on": "child(same); same()",
    "a child of a child": "child(lambda: child(same)); same()",
    "the child trains": "weights = train(0); child(lambda: sys.exit(9) if train(0) != weights else None); same()",
    "many children": "[child(same) for _ in range(10)]",
    "another number in the child": "child(lambda: (smelt.set_num_threads(5), same(), smelt.set_num_threads(1), same()))",
    "fork before the first region": "smelt.set_num_threads(2); child(same); same()",
    "fork while threads compute": (
        "stop = threading.Event()\n"
        "def compute():\n"
        "    while not stop.is_set(): same()\n"
        "def forks():\n"
        "    try:\n"
        "        for _ in range(10): child(same)\n"
        "    finally: stop.set()\n"
        "in_threads(forks, compute, compute)"
    ),
    "threads in the child": "child(lambda: in_threads(same, same)); same()",
}


@pytest.mark.parametrize("name", FORKS)
def test_fork(name, tmp_path):
    root = __file__.rsplit("/tests/", 1)[0]
    python(PROGRAM + FORKS[name], cwd=tmp_path, PYTHONPATH=root)


def test_spawn_and_fork_pools_of_multiprocessing(tmp_path):
    """Workers made by the standard library in both ways give the parent's bits."""
    script = tmp_path / "script.py"
    script.write_text(
        PROGRAM
        + """
import multiprocessing as mp

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with mp.get_context(method).Pool(2) as pool:
            assert pool.map(work, [0, 0, 0]) == [expected] * 3
    print("same bits")
"""
    )
    root = __file__.rsplit("/tests/", 1)[0]
    done = run([sys.executable, str(script)], tmp_path, PYTHONPATH=root)
    assert done.returncode == 0 and done.stdout == "same bits\n", done.stderr
