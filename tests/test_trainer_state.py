"""What fit, evaluate and predict take over from the caller, leave as it was, refuse, and find again on resuming."""

import json

import numpy as np
import pytest

import smelt
from smelt import data, nn, optim
from smelt.train import Callback
from tests.fixtures import make
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
        before = state(trainer.model)
        for inputs in (x, smelt.tensor(x)):
            with pytest.raises(ValueError, match=r"inputs must be finite, step \d+ has 1 value.*row 17 of the batch"):
                trainer.step(inputs, y)
        assert_same(state(trainer.model), before)


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


# ---------------------------------------------------------------------------------------------------- another run


def clipped(parameters):
    return optim.AdamW(parameters, lr=0.02, clip_norm=2.0)


# Options of the trainer or of fit that differ from the first run's, and what the message says.
OTHER_RUNS = {
    "optimizer": ({"optimizer": "sgd"}, "optimizer must be that of the checkpoint, AdamW, got SGD"),
    "clip_norm": ({"optimizer": clipped}, "optimizer must be that of the checkpoint, AdamW, got AdamW clip_norm=2"),
    "loss": (
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        "loss must be .*, cross_entropy, got CrossEntropyLoss",
    ),
    "metrics": ({"metrics": ["f1"]}, r"metrics must be that of the checkpoint, \['accuracy'\], got \['f1'\]"),
    "schedule": ({"schedule": "cosine"}, "schedule must be .*, one_cycle with factors 0.04,.*, got cosine with .* 1, "),
    "function": (
        {"schedule": lambda step: smelt.schedule.one_cycle(12)(step) * (1 + (step == 10))},
        "schedule must be .*, one_cycle with factors.*, got a function with factors",
    ),
    "shuffle": ({"shuffle": False}, "shuffle must be that of the checkpoint, True, got False"),
    "drop_last": ({"drop_last": True}, "drop_last must be that of the checkpoint, False, got True"),
    "validation": ({"validation": None}, "validation must be that of the checkpoint, sha256 [0-9a-f]{64}, got none"),
    "other validation": ({"validation": problem(3)}, "validation must be .*, sha256 [0-9a-f]{64}, got sha256"),
    "monitor": ({"monitor": "val_accuracy"}, "monitor must be that of the checkpoint, val_loss, got val_accuracy"),
    "patience": ({"patience": 3}, "patience must be that of the checkpoint, None, got 3"),
    "dataset": ({"train": problem(7)}, "dataset must be that of the checkpoint, sha256 [0-9a-f]{64}, got sha256"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run folder of two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    new_trainer().fit(problem(), problem(1), epochs=2, batch_size=BATCH, out=folder)
    return folder


@pytest.mark.parametrize("name", OTHER_RUNS)
def test_resume_refuses_what_is_another_run(name, finished):
    change, message = OTHER_RUNS[name]
    options = {"train": problem(), "validation": problem(1), "epochs": 2, "batch_size": BATCH, **change}
    trainer = new_trainer(**{k: options.pop(k) for k in ("optimizer", "loss", "metrics", "schedule") if k in options})
    before, rate = state(trainer.model), trainer.optimizer.lr
    with pytest.raises(ValueError, match=f"^resume: {message}"):
        trainer.fit(**options, out=finished, resume=True)
    assert_same(state(trainer.model), before)
    assert trainer.optimizer.lr == rate and trainer.steps == 0


def test_resume_takes_equal_options_that_are_written_otherwise(finished):
    """A schedule as a function of the same values, the data in another place."""
    trainer = new_trainer(schedule=smelt.schedule.one_cycle(12), metrics=[smelt.metrics.Accuracy()])
    train, validation = (data.ArrayDataset(*map(smelt.tensor, problem(seed))) for seed in (0, 1))
    trainer.fit(train, validation, epochs=2, batch_size=BATCH, out=finished, resume=True)
    assert trainer.steps == 12


def test_a_checkpoint_that_does_not_tell_the_options_is_taken(tmp_path):
    """The fixture was written before they were noted."""
    fixture = make.FOLDER / "checkpoint-format-1.safetensors"
    assert "options" not in smelt.read_metadata(fixture)["smelt.trainer"]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000007.safetensors").write_bytes(fixture.read_bytes())
    trainer, options = make.trainer()
    trainer.schedule = "one_cycle"
    trainer.fit(**options, out=tmp_path, resume=True, shuffle=False, patience=None)
    assert trainer.steps == 10
    trainer, options = make.trainer()
    with pytest.raises(ValueError, match="schedule must be that of the checkpoint, one_cycle"):
        trainer.fit(**options, out=tmp_path, resume=True, shuffle=False)


# ------------------------------------------------------------------------------------------------ NaN in JSON files


def strict(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


class Odd(smelt.metrics.Metric):
    """Infinite or NaN, by turns; its state has None and numbers of all kinds."""

    name = "odd"

    def __init__(self):
        self.values = [np.inf, -np.inf, np.nan, None]

    def reset(self):
        self.values = [self.values[1], self.values[2], self.values[0], None]

    def update(self, outputs, labels):
        pass

    def compute(self):
        return self.values[0]


def test_files_have_null_for_nan_and_resuming_has_the_value(tmp_path):
    """Labels that the loss ignores give a loss of NaN, a metric gives infinity: json.loads of Python alone read that."""

    def fit(out, crash_at=None, resume=False):
        trainer = new_trainer(metrics=[Odd()], labels=["a", "b", "c"])
        callbacks = [] if crash_at is None else [Crash(crash_at)]
        options = {"epochs": 4, "batch_size": BATCH, "shuffle": False, "out": out, "monitor": "val_odd"}
        validation = (problem()[0], np.full(ROWS, -100))
        trainer.fit(problem(), validation, **options, callbacks=callbacks, checkpoint_every=1, resume=resume)
        return trainer

    whole = fit(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="the power fails"):
        fit(tmp_path / "broken", 15)
    resumed = fit(tmp_path / "broken", resume=True)
    np.testing.assert_equal(rows(resumed.history), rows(whole.history))
    np.testing.assert_equal(resumed.metrics[0].values, whole.metrics[0].values)
    assert_same(state(resumed.model), state(whole.model))
    assert np.isnan(whole.history["val_loss"]).all() and np.isinf(whole.history["train_odd"]).any()
    for text in ((tmp_path / "whole" / "history.json").read_text(), whole.history.to_json()):
        assert [row["val_loss"] for row in strict(text)] == [None] * 4
    for path in (tmp_path / "whole").rglob("*.safetensors"):
        content = path.read_bytes()
        header = strict(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert {key for key, value in header["__metadata__"].items() if strict(value)} > {
            "smelt.format",
            "smelt.metrics",
        }
        assert smelt.read_metadata(path)["smelt.metrics"]["val_loss"] is None


def test_arguments_of_constructors_keep_infinity(tmp_path):
    model = nn.Sequential(Bounded(-np.inf, high=np.inf))
    smelt.save(model, tmp_path / "m.safetensors", metrics={"loss": np.nan})
    loaded = smelt.load(tmp_path / "m.safetensors")
    assert (loaded[0].low, loaded[0].high, loaded.metrics) == (-np.inf, np.inf, {"loss": None})


@smelt.register
class Bounded(nn.Module):
    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high
