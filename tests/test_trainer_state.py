"""What fit, evaluate and predict take over from the caller, leave as it was, refuse, and find again on resuming."""

import numpy as np
import pytest

import smelt
from smelt import data, nn, optim
from smelt.train import Callback
from tests.test_trainer import BATCH, ROWS, Crash, assert_same, new_trainer, poisoned, problem, rows, state

# ------------------------------------------------------------------------------------------------------------- modes


def modes(model):
    return [module.training for module in model.modules()]


def test_evaluate_and_predict_leave_the_mode_of_every_module():
    """Also after an error, and also what a frozen part goes back to."""
    trainer = new_trainer()
    trainer.model.train()
    trainer.model[1].eval()
    nn.freeze(trainer.model[4])
    before = modes(trainer.model)
    assert True in before and before.count(False) == 3
    trainer.evaluate(problem())
    trainer.predict(problem()[0])
    assert modes(trainer.model) == before
    for call in (lambda: trainer.predict(np.ones((4, 5), np.float32)), lambda: trainer.evaluate(problem(), 0)):
        with pytest.raises(ValueError, match=r"linear|batch_size"):
            call()
        assert modes(trainer.model) == before
    nn.unfreeze(trainer.model[4])
    assert modes(trainer.model[4]) == [True, True]


def test_unfreeze_gives_back_the_mode_from_before_or_asked_for_since():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)).eval()
    nn.unfreeze(nn.freeze(nn.freeze(model)))
    assert modes(model) == [False] * 3
    model[1].train()
    nn.unfreeze(nn.freeze(model))
    assert modes(model) == [False, False, True]
    nn.freeze(model).train()
    assert modes(model) == [False] * 3 and modes(nn.unfreeze(model)) == [True] * 3
    nn.unfreeze(nn.freeze(model).eval())
    assert modes(model) == [False] * 3
    assert all(p.requires_grad for p in model.parameters())


# ------------------------------------------------------------------------------------------------- evaluate, predict


def test_evaluate_measures_a_whole_epoch_and_leaves_the_loader_where_it_stands():
    """A loader that was begun, one that an error broke off, and one that trains at the time."""
    x, y = problem()
    loader = data.Loader(data.ArrayDataset(x, y), BATCH, shuffle=True, seed=4)
    trainer = new_trainer(metrics=["accuracy", "confusion_matrix"])
    whole = trainer.evaluate(loader)
    assert whole["confusion_matrix"].sum() == ROWS and loader.state_dict() == {"epoch": 0, "position": 0, "seed": 4}
    rest = iter(loader)
    _, first = next(rest)
    seen = loader.rows.copy()
    again = trainer.evaluate(loader)
    assert again["loss"] == whole["loss"] and again["confusion_matrix"].sum() == ROWS
    assert loader.state_dict() == {"epoch": 0, "position": 1, "seed": 4}
    np.testing.assert_array_equal(loader.rows, seen)
    assert len(np.concatenate([first.numpy(), *(labels.numpy() for _, labels in rest)])) == ROWS
    bad = data.Loader(data.ArrayDataset(x, np.where(np.arange(ROWS) == 40, 3, y)), BATCH)
    for _ in range(2):
        with pytest.raises(IndexError, match="got 3"):
            trainer.evaluate(bad)
        assert bad.position == 0
    history = trainer.fit(loader, validation=loader, epochs=2)
    assert history["epoch"] == [1, 2] and history["step"] == [6, 12]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused_everywhere(value):
    """The row is that of the dataset; also where the model would hide it, as tanh does with infinity."""
    message = r"inputs must be finite, the batch has 1 values that are not \(first in row 17 of the dataset\)$"
    x, y = poisoned(value)
    saturating = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    for trainer in (new_trainer(), smelt.Trainer(saturating)):
        for call in (
            lambda t: t.evaluate((x, y), batch_size=8),
            lambda t: t.predict(x, batch_size=8),
            lambda t: t.fit(problem(), validation=(x, y), epochs=1),
        ):
            with pytest.raises(ValueError, match=message):
                call(trainer)


def test_targets_that_are_not_finite_name_the_row():
    x, y = problem()[0], np.zeros((ROWS, 1), np.float32)
    y[30] = np.nan
    trainer = smelt.Trainer(nn.Linear(6, 1), loss="mse")
    with pytest.raises(ValueError, match=r"^Trainer: targets must be finite.*first in row 30 of the dataset"):
        trainer.evaluate((x, y), batch_size=8)
    with pytest.raises(ValueError, match=r"^Trainer: targets must be finite, step 1 .*first in row 30 of the batch"):
        trainer.step(x, y)


# --------------------------------------------------------------------------------------------------- learning rates


class SetRate(Callback):
    """Sets the rate at some steps, of all groups or of one, and notes with which each step was taken."""

    def __init__(self, rates, group=None):
        self.rates, self.group, self.used = rates, group, []

    def on_step_end(self, trainer, step, loss):
        self.used.append([group.lr for group in trainer.optimizer.groups])
        if step in self.rates:
            if self.group is None:
                trainer.optimizer.lr = self.rates[step]
            else:
                trainer.optimizer.groups[self.group].lr = self.rates[step]


def two_groups(parameters):
    named = list(parameters)
    return optim.SGD([{"params": named[:2], "lr": 0.1}, {"params": named[2:], "lr": 0.02}], lr=0.1)


@pytest.mark.parametrize("group", [None, 1])
def test_a_rate_that_a_callback_sets_is_the_new_base(group):
    """0.1 and 0.02 under a schedule that halves every step; afterwards the optimizer has the base."""
    trainer = new_trainer(two_groups, schedule=lambda step: 0.5**step)
    callback = SetRate({2: 0.4, 6: 0.8}, group)
    trainer.fit(problem(), epochs=1, batch_size=BATCH, callbacks=[callback])
    first = 0.1 if group == 1 else 0.4
    expected = [[0.1, 0.02], [0.05, 0.01], *([first * 0.5**step, 0.4 * 0.5**step] for step in range(2, 6))]
    assert callback.used == expected  # powers of two: exact
    assert [g.lr for g in trainer.optimizer.groups] == [0.1 if group == 1 else 0.8, 0.8]


@pytest.mark.parametrize(("every", "crash"), [(1, 9), (4, 11), (8, 9), (None, 13)])
def test_a_rate_that_was_set_survives_resuming(every, crash, tmp_path):
    """Also when the checkpoint is written between the callback that sets it and the step that takes it."""

    def fit(out, crash_at=None, resume=False):
        trainer = new_trainer(schedule="cosine")
        callbacks = [SetRate({4: 0.3, 8: 0.01, 12: 0.05})] + ([] if crash_at is None else [Crash(crash_at)])
        options = {"epochs": 4, "batch_size": BATCH, "checkpoint_every": every, "resume": resume}
        trainer.fit(problem(), problem(1), callbacks=callbacks, out=out, **options)
        return trainer

    whole = fit(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="the power fails"):
        fit(tmp_path / "broken", crash)
    resumed = fit(tmp_path / "broken", resume=True)
    assert rows(resumed.history) == rows(whole.history) and resumed.optimizer.lr == whole.optimizer.lr == 0.05
    assert_same(state(resumed.model), state(whole.model))


class Interrupted(Callback):
    def on_step_end(self, trainer, step, loss):
        if step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("callback", [Crash(3), Interrupted()])
def test_a_run_that_is_broken_off_leaves_the_base_rate(callback):
    trainer = new_trainer(lr=0.25, schedule="one_cycle")
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        trainer.fit(problem(), epochs=2, batch_size=BATCH, callbacks=[callback])
    assert trainer.optimizer.lr == 0.25
    later = SetRate({})
    trainer.fit(problem(), epochs=1, batch_size=BATCH, callbacks=[later])
    assert later.used[0] == [0.25 * smelt.schedule.one_cycle(6)(0)]
