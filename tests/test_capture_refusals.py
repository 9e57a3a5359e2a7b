"""Recorded steps: what is refused, and why; errors and states after them."""

import threading

import numpy as np
import pytest

import smelt
from smelt import _core, nn, optim

from .test_capture import assert_same, batch, network, own_step, weights

kept_tensors = []
layer = nn.Linear(2, 2)


def with_hook(x):
    y = layer(x)
    y.register_hook(lambda g: g * 2)
    y.sum().backward()


class Twice(smelt.Function):
    @staticmethod
    def forward(context, x):
        return x * 2

    @staticmethod
    def backward(context, grad):
        return grad * 2


REFUSED = {
    "item": (lambda x: x * float(x.sum()), "it reads a value on the host"),
    "branch": (lambda x: x * 2 if x.sum() > 0 else x, "it reads a value on the host"),
    "numpy": (lambda x: smelt.zeros(2) + float(x.numpy()[0]), "it reads a value on the host"),
    "tolist": (lambda x: x * x.tolist()[0], "it reads a value on the host"),
    "nonzero": (lambda x: x[x > 0].sum(), "it reads a value on the host"),
    "host tensor": (
        lambda x: x + smelt.tensor([1.0, 2.0]),
        "it makes a tensor from values on the host, instead of taking it as an argument",
    ),
    "foreign array": (
        lambda x: x + np.ones(2, "float32"),
        "it takes in memory from outside, such as a NumPy array, that is not one of its arguments",
    ),
    "unwritten": (lambda x: smelt.empty(2), "it gives back values that no kernel of the step wrote"),
    "kept": (lambda x: kept_tensors.append(x * 2), "a tensor that it made is kept beyond its end"),
    "on the tape": (lambda x: layer(x.reshape(1, 2)), "it gives back a tensor that is still on the tape"),
    "hook": (lambda x: with_hook(x.reshape(1, 2)), "a hook in Python runs in it"),
    "function": (lambda x: Twice.apply(x), "it calls a smelt.Function, which is Python"),
    "seed": (lambda x: smelt.manual_seed(1), "it seeds the random generator"),
    "writes": (lambda x: [x.copy_(x * 2), None][1], "it writes to one of its inputs"),
    "object": (lambda x: (x * 2, object()), "it gives back a object, which a replay cannot make"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why_and_the_function_runs_as_ever(name):
    function, why = REFUSED[name]
    step = smelt.capture(function)
    for _ in range(6):
        x = smelt.tensor([1.0, 2.0])
        step(x)
    assert step.recording.startswith("not recorded: "), step.recording
    assert why in step.recording
    assert not step.plans
    kept_tensors.clear()


def test_forward_hooks_refuse():
    model = nn.Sequential(nn.Linear(2, 2))
    step = smelt.capture(lambda x: model(x).detach())
    for _ in range(4):
        step(smelt.ones(1, 2))
    assert step.plans
    remove = model[0].register_forward_hook(lambda module, inputs, output: output * 0)
    assert step(smelt.ones(1, 2)).tolist() == [[0.0, 0.0]]
    remove()
    assert step(smelt.ones(1, 2)).tolist() != [[0.0, 0.0]]
    model[0].register_forward_pre_hook(lambda module, inputs: None)
    for _ in range(6):
        step(smelt.ones(1, 2))
    assert step.recording == "not recorded: a forward hook of Linear runs in it, which is Python"


def test_a_leaf_hook_that_comes_later():
    model = nn.Linear(2, 1)
    opt = optim.SGD(model.parameters(), lr=1.0)
    step = smelt.capture(own_step(nn.Sequential(model, nn.Linear(1, 3)), opt))
    x, y = np.ones((4, 2), "float32"), np.zeros(4, "int64")
    for _ in range(4):
        step(x, y)
    assert step.plans
    handle = model.weight.register_hook(lambda g: g * 0)
    before = model.weight.tolist()
    step(x, y)
    assert model.weight.tolist() == before
    handle.remove()
    step(x, y)
    assert model.weight.tolist() != before


def test_inputs_that_share_memory():
    step = smelt.capture(lambda x, y: x + y)
    x = np.arange(6, dtype="float32")
    for _ in range(6):
        assert step(x, x).tolist() == (2 * x).tolist()
    assert step.recording == "not recorded: its inputs 0 and 1 share memory"
    p = nn.Parameter(smelt.ones(2))
    step = smelt.capture(lambda x: (x * p).detach())
    for _ in range(6):
        step(p)
    assert step.recording == "not recorded: its input 0 is a parameter or on the tape"
    step = smelt.capture(lambda x: (x * p).detach())
    for _ in range(6):
        step(p.detach())
    assert step.recording == "not recorded: its input 0 shares memory with what it uses besides"
    # The plan is not for inputs like these either.
    step = smelt.capture(lambda x, y: x * 10 + y)
    for i in range(4):
        step(np.full(6, float(i), "float32"), x)
    assert step.plans
    assert step(x, x).tolist() == (11 * x).tolist()


def test_a_changing_shape():
    step = smelt.capture(lambda x: x * 2)
    for n in range(1, 60):
        assert step(smelt.ones(n)).shape == (n,)
    assert "of its first" in step.recording and "bring lengths to a few sizes" in step.recording


def test_a_constant_that_changes():
    holder = {"scale": 1.0}
    step = smelt.capture(lambda x: x * holder["scale"])
    for i in range(8):
        holder["scale"] = float(i)
        assert step(smelt.ones(1)).item() == i
    assert "two runs of it did not do the same: call 0, binary (mul), had other arguments" in step.recording


def test_at_most_eight_plans():
    step = smelt.capture(lambda x: x * 2)
    for n in range(1, 13):
        for _ in range(4):
            assert step(smelt.ones(n)).tolist() == [2.0] * n
    assert len(step.plans) == 8


def test_what_a_decorator_keeps_and_refuses():
    @smelt.capture
    def named(x):
        """What it does."""
        return x

    assert named.__name__ == "named" and named.__doc__ == "What it does."
    with pytest.raises(TypeError, match="capture: needs a function, got int"):
        smelt.capture(3)
    with pytest.raises(TypeError, match="capture: arguments must be tensors, arrays, values that hash"):
        named({1, 2})


# ------------------------------------------------------------------------------------------------------------- errors


def test_an_error_in_the_function_and_in_a_replay():
    table = nn.Embedding(4, 2)
    step = smelt.capture(lambda i: table(i).detach())
    for _ in range(3):
        step(np.array([0, 3]))
    assert step.plans
    with pytest.raises(IndexError, match=r"^embedding: index must be in \[0, 4\), got 7 at position 1$"):
        step(np.array([0, 7]))
    assert step(np.array([1, 1])).tolist() == table(smelt.tensor([1, 1])).tolist()
    broken = smelt.capture(lambda x: x @ x)
    for _ in range(3):
        with pytest.raises(ValueError, match="matmul"):
            broken(smelt.ones(2, 3))
    assert not _core.recording()


@pytest.mark.parametrize("problem", ["labels", "loss"])
def test_a_refused_step_of_the_trainer_changes_nothing(problem):
    def run(recorded):
        smelt.manual_seed(2)
        trainer = smelt.Trainer(network(), lr=0.01)
        trainer._recorder.off = None if recorded else "a test"
        x, y = batch()
        for _ in range(4):
            trainer.step(x, y)
        before = weights(trainer.model)
        message = ""
        try:
            if problem == "labels":
                trainer.step(x, np.where(np.arange(16) == 3, 9, y))
            else:
                trainer.step(np.sign(x) * np.float32(3e38), y)
        except (IndexError, RuntimeError) as error:
            message = str(error)
        assert_same(before, weights(trainer.model))
        for _ in range(4):
            trainer.step(x, y)
        return message, weights(trainer.model), trainer

    message, final, _ = run(False)
    recorded_message, recorded_final, trainer = run(True)
    assert message == recorded_message and message.startswith("Trainer: ")
    assert_same(final, recorded_final)
    assert trainer.recording.startswith("recorded: ")


def test_a_nested_capture_and_a_profile():
    inner = smelt.capture(lambda x: x * 2)
    outer = smelt.capture(lambda x: inner(x) + 1)
    for _ in range(4):
        assert outer(smelt.ones(1)).item() == 3
    assert outer.plans
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    step = smelt.capture(lambda x: model(x).detach())
    for _ in range(4):
        step(smelt.ones(1, 2))
    with smelt.profile() as p:
        step(smelt.ones(1, 2))
    assert {k.layer for k in p.kernels} >= {"0"}  # the ReLU runs within


def test_threads_share_a_captured_function():
    step = smelt.capture(lambda x: (x * 2 + 1).sum())
    failures = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(200):
            x = rng.integers(0, 100, 64).astype("float32")
            if step(x).item() != (x * 2 + 1).sum():
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures and step.plans


def test_no_grad_and_autocast_have_plans_of_their_own():
    layer = nn.Linear(4, 4)
    step = smelt.capture(lambda x: layer(x).detach())
    x = smelt.randn(2, 4)
    for _ in range(5):
        wide = step(x)
        with smelt.autocast("bf16"):
            low = step(x)
        with smelt.no_grad():
            step(x)
    assert wide.dtype == "float32" and low.dtype == "bfloat16"
    assert len(step.plans) == 3
