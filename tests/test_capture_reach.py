"""What a recorded step depends on beyond its arguments: generators within reach, its loss, the state of objects."""

import functools
import random
import types
from dataclasses import dataclass

import numpy as np
import pytest

import smelt
from smelt import _changes, kernels, losses, nn

X, Y = np.ones((4, 3), "float32"), np.array([0, 1, 0, 1])
GLOBAL = np.random.default_rng(0)


def draw_from_global():
    return GLOBAL.random()


class Holder:
    def __init__(self, generator):
        self.inside = {"a list": [generator]}

    def draw(self):
        return self.inside["a list"][0].random()


class Slotted:
    __slots__ = "generator"  # a string is one name

    def __init__(self, generator):
        self.generator = generator


def in_a_helper():
    return lambda x: x * 2 if draw_from_global() < 0.2 else x


def in_a_method():
    holder = Holder(random.Random(0))
    return lambda x: x * 2 if holder.draw() < 0.2 else x


def in_a_slot():
    holder = Slotted(np.random.RandomState(0))
    return functools.partial(lambda held, x: x * 2 if held.generator.rand() < 0.2 else x, holder)


def in_a_default():
    def f(x, generator=random.Random(0)):  # noqa: B008
        return x * 2 if generator.random() < 0.2 else x

    return f


def in_an_inner_function():
    def f(x):
        def inner():
            return GLOBAL.random()

        return x * 2 if inner() < 0.2 else x

    return f


@pytest.mark.parametrize("make", [in_a_helper, in_a_method, in_a_slot, in_a_default, in_an_inner_function])
def test_a_generator_within_reach_of_a_captured_function(make):
    step = smelt.capture(make())
    for _ in range(6):
        step(smelt.ones(2))
    assert step.recording == "not recorded: it has a random generator that is not smelt's"


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        y = self.layer(x)
        return y * 0 if draw_from_global() < 0.2 else y


def test_a_global_generator_of_a_module_in_the_trainer():
    GLOBAL.bit_generator.state = np.random.default_rng(0).bit_generator.state
    trainer = smelt.Trainer(Dropping())
    losses_of_steps = [trainer.step(X, Y).item() for _ in range(40)]
    assert trainer.recording == "not recorded: it has a random generator that is not smelt's"
    dropped = [draw < 0.2 for draw in np.random.default_rng(0).random(40)]
    assert [abs(value - np.log(2)) < 1e-6 for value in losses_of_steps] == dropped and any(dropped)


def test_a_generator_of_the_loss():
    generator = np.random.default_rng(0)
    trainer = smelt.Trainer(nn.Linear(3, 2), loss=lambda p, y: losses.cross_entropy(p, y) * generator.random())
    for _ in range(6):
        trainer.step(X, Y)
    assert trainer.recording == "not recorded: it has a random generator that is not smelt's"


def test_the_search_ends_and_stays_out_of_libraries():
    ring = []
    ring.append(ring)
    assert not _changes.reaches_generator([ring, nn.Linear(2, 2), smelt.Trainer, np.mean, random.random, types])
    assert not _changes.reaches_generator([list(range(30_000))])
    assert _changes.reaches_generator([[[{"a": {1, 2}, "b": (random.Random(0),)}]]])


def losses_with(trainer, losses_of_steps):
    found = []
    for loss in losses_of_steps:
        trainer.loss = loss()
        found += [trainer.step(X, Y).item() for _ in range(4)]
    return found


def both(losses_of_steps):
    results = []
    for off in ("a test", None):
        smelt.manual_seed(0)
        trainer = smelt.Trainer(nn.Linear(3, 2), loss=losses.cross_entropy)
        trainer._recorder.off = off
        results.append(losses_with(trainer, losses_of_steps))
    assert "replay" in trainer.recording
    return results


def scaled(factor):
    return lambda: lambda p, y: losses.cross_entropy(p, y) * factor


def test_a_loss_whose_number_in_memory_is_that_of_an_older_one():
    plain, recorded = both([scaled(factor) for factor in (1, 2, 3, 4, 5, 6)])
    assert plain == recorded


class Weighted:
    def __init__(self):
        self.weight = 1.0

    def loss(self, p, y):
        return losses.cross_entropy(p, y) * float(self.weight)


@dataclass(slots=True, eq=False)
class SlottedLoss:
    weight: float = 1.0

    def __call__(self, p, y):
        return losses.cross_entropy(p, y) * self.weight


class Listed:
    def __init__(self):
        self.weights = [1.0, (2.0, {"a": 3.0})]

    def __call__(self, p, y):
        return losses.cross_entropy(p, y) * self.weights[0] * self.weights[1][1]["a"]


def set_weight(loss, value):
    loss.weight = value


def set_within(loss, value):
    loss.weights[1][1]["a"] = value


@pytest.mark.parametrize(
    ("make", "given", "change"),
    [
        (Weighted, lambda loss: loss.loss, set_weight),
        (Weighted, lambda loss: functools.partial(loss.loss), set_weight),
        (Weighted, lambda loss: loss.loss, lambda loss, v: set_weight(loss, np.float32(v))),
        (SlottedLoss, lambda loss: loss, set_weight),
        (Listed, lambda loss: loss, set_within),
    ],
)
def test_the_state_of_a_loss(make, given, change):
    results = []
    for off in ("a test", None):
        smelt.manual_seed(0)
        loss = make()
        trainer = smelt.Trainer(nn.Linear(3, 2), loss=given(loss))
        trainer._recorder.off = off
        found = []
        for value in (1.0, 2.0, 3.0):
            change(loss, value)
            found += [trainer.step(X, Y).item() for _ in range(4)]
        results.append(found)
    assert results[0] == results[1] and "replay" in trainer.recording


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, complex])
def test_minus_zero_is_another_constant(kind):
    step = smelt.capture(lambda x, c: x * (1.0 if np.signbit(np.real(c)) else 2.0))
    for _ in range(4):
        assert step(smelt.ones(1), kind(0.0)).item() == 2
        assert step(smelt.ones(1), kind(-0.0)).item() == 1
    assert len(step.plans) == 2


def test_a_parameter_that_is_given_back_is_not_recorded():
    layer = nn.Linear(2, 2)
    step = smelt.capture(lambda x: layer.weight)
    for _ in range(6):
        layer.zero_grad()
        (step(smelt.ones(1, 2)) * 2).sum().backward()
        np.testing.assert_array_equal(layer.weight.grad.numpy(), 2)
    assert "still on the tape" in step.recording


def test_a_trace_is_of_kernels_that_run():
    step = smelt.capture(lambda x: (x * 2).exp())
    for _ in range(4):
        step(smelt.ones(2))
    with kernels.trace() as names:
        step(smelt.ones(2))
    assert [name.split("_")[1] for name in names][-3:] == ["binary", "unary", "copy"]


def test_a_layer_that_was_set_to_evaluate_stays_so_in_steps():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    trainer = smelt.Trainer(model)
    model[1].eval()
    mean = model[1].running_mean.numpy().copy()
    for _ in range(6):
        trainer.step(X, Y)
    assert not model[1].training and model.training
    np.testing.assert_array_equal(model[1].running_mean.numpy(), mean)
    assert "replay" in trainer.recording


class FrozenNorm(nn.Module):
    """The usual way to keep a layer's statistics."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(self.norm(x))

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


def test_a_model_that_keeps_a_layer_from_training_is_recorded():
    trainer = smelt.Trainer(FrozenNorm())
    for _ in range(8):
        trainer.step(X, Y)
    assert trainer.recording.endswith("replays") and not trainer.recording.endswith(" 0 replays")
