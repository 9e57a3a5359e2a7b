"""The trainer: steps, epochs, validation, checkpoints, exact resume, bad data, callbacks, Ctrl-C, the run folder."""

import fcntl
import json
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest

import smelt
from smelt import data, losses, metrics, nn, optim
from smelt.train import Callback, History, RunFolder, plot_run
from tests.processes import python, start

ROWS = 90
BATCH = 16  # six steps an epoch, the last with 10 rows


def problem(seed=0, rows=ROWS):
    """Inputs (rows, 6) and three classes that a small network can tell apart."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6)).astype(np.float32)
    return x, (x[:, :3] + 0.3 * x[:, 3:]).argmax(1).astype(np.int64)


def network():
    """With dropout and batch norm, so that random numbers and running statistics matter."""
    smelt.manual_seed(3)
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Sequential(nn.Linear(16, 3))
    )


def new_trainer(optimizer="adamw", **options):
    options = {"lr": 0.02, "metrics": ["accuracy"], "schedule": "one_cycle", **options}
    model = network()
    if callable(optimizer):
        optimizer = optimizer(model.named_parameters())
    return smelt.Trainer(model, optimizer=optimizer, **options)


def state(module):
    return {name: t.numpy().copy() for name, t in module.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def rows(history):
    """The rows without what the clock says."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


# ----------------------------------------------------------------------------------------------- step, fit, evaluate


def test_step_is_forward_backward_update():
    """One step of the trainer gives the bits of the same three calls by hand."""
    x, y = problem()
    by_hand, trained = network(), network()
    optimizer = optim.SGD(by_hand.parameters(), lr=0.1)
    trainer = smelt.Trainer(trained, optimizer=optim.SGD(trained.parameters(), lr=0.1))
    for _ in range(3):
        smelt.manual_seed(1)
        loss = losses.cross_entropy(by_hand(smelt.tensor(x)), smelt.tensor(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        smelt.manual_seed(1)
        value = trainer.step(x, y)
        assert value.item() == loss.item() and value.shape == () and not value.requires_grad
    assert_same(state(trained), state(by_hand))
    assert trainer.steps == 3


def test_fit_learns_and_keeps_a_history():
    x, y = problem()
    trainer = new_trainer()
    before = trainer.evaluate((x, y))
    history = trainer.fit((x, y), validation=problem(1), epochs=8, batch_size=BATCH)
    after = trainer.evaluate((x, y))
    assert after["loss"] < 0.5 * before["loss"] and after["accuracy"] > 0.9 > before["accuracy"]
    assert history is trainer.history and len(history) == 8
    assert history.columns == [
        "epoch", "step", "seconds", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
    ]  # fmt: skip
    assert history["epoch"] == list(range(1, 9)) and history["step"] == [6 * n for n in range(1, 9)]
    assert sorted(history["seconds"]) == history["seconds"] and history["train_loss"][-1] < history["train_loss"][0]
    with pytest.raises(KeyError, match=r"one of epoch, step, .*got 'val_f1'"):
        history["val_f1"]


def test_training_loss_and_metrics_are_means_over_rows():
    """With a learning rate that changes nothing, an epoch's row is that of the whole set, short last batch included."""
    x, y = problem()
    model = nn.Linear(6, 3)
    trainer = smelt.Trainer(model, optimizer=optim.SGD(model.parameters(), lr=1e-30), metrics=["accuracy"])
    row = trainer.fit((x, y), epochs=1, batch_size=BATCH).rows[0]
    logits = x.astype(np.float64) @ model.weight.numpy().astype(np.float64).T + model.bias.numpy()
    shifted = logits - logits.max(1, keepdims=True)
    expected = (np.log(np.exp(shifted).sum(1)) - shifted[np.arange(ROWS), y]).mean()
    # Each loss: a product of 6 terms, exp and log of order 1, a sum over 3 classes and 16 rows: 64 roundings cover it.
    assert row["train_loss"] == pytest.approx(expected, rel=64 * 2.0**-24)
    assert row["train_accuracy"] == (logits.argmax(1) == y).mean()
    assert trainer.evaluate((x, y), batch_size=7)["loss"] == pytest.approx(expected, rel=64 * 2.0**-24)


def test_evaluate_and_predict_change_nothing():
    x, y = problem()
    trainer = new_trainer(metrics=["accuracy", "f1", metrics.ConfusionMatrix()])
    trainer.step(x, y)
    before, random = state(trainer.model), smelt.get_rng_state()
    report, outputs = trainer.evaluate((x, y)), trainer.predict(x, batch_size=32)
    assert trainer.model.training and smelt.get_rng_state() == random
    assert_same(state(trainer.model), before)
    trainer.model.eval()
    with smelt.no_grad():
        expected = trainer.model(smelt.tensor(x)).numpy()
    np.testing.assert_array_equal(outputs.numpy(), expected)  # no dropout, running statistics, any batch size
    assert report["accuracy"] == (expected.argmax(1) == y).mean()
    assert report["confusion_matrix"].sum() == ROWS and not outputs.requires_grad
    np.testing.assert_array_equal(trainer.predict(data.ArrayDataset(x)).numpy(), expected)


def test_preprocess_is_part_of_training_and_prediction():
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8)
    preprocess = data.ImagePreprocess.fit(images)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    trainer = smelt.Trainer(model, preprocess=preprocess)
    with smelt.no_grad():
        expected = model(preprocess(images)).numpy()
    np.testing.assert_array_equal(trainer.predict(images).numpy(), expected)
    trainer.step(images, np.arange(12) % 2)


@pytest.mark.parametrize("out", [False, True])
def test_early_stopping_puts_the_best_weights_back(out, tmp_path):
    kept = {}

    class Keep(Callback):
        def on_epoch_end(self, trainer, row):
            kept[row["epoch"]] = (row["val_loss"], state(trainer.model))

    def fit(**options):
        trainer = new_trainer(lr=0.3, schedule=None)
        options["out"] = tmp_path / "run" if out else None
        history = trainer.fit(problem(), problem(1, 20), 40, BATCH, callbacks=[Keep()], patience=3, **options)
        return trainer, history

    trainer, history = fit()
    best = min(kept, key=lambda epoch: kept[epoch][0])
    assert len(history) == best + 3 < 40, "it ends three epochs after the best"
    assert_same(state(trainer.model), kept[best][1])
    assert not trainer.model.training
    if out:
        assert_same(state(smelt.load(tmp_path / "run")), kept[best][1])
        again, longer = fit(resume=True)  # what has run out of patience does not go on
        assert rows(longer) == rows(history)
        assert_same(state(again.model), kept[best][1])


def test_monitor_of_a_metric_takes_the_highest():
    trainer, kept = new_trainer(lr=0.3), {}

    class Keep(Callback):
        def on_epoch_end(self, trainer, row):
            kept.setdefault(row["val_accuracy"], state(trainer.model))  # the first of equals

    trainer.fit(problem(), problem(1, 20), 6, BATCH, callbacks=[Keep()], monitor="val_accuracy")
    assert_same(state(trainer.model), kept[max(kept)])


# ------------------------------------------------------------------------------------------------ checkpoints, resume


class Crash(Callback):
    def __init__(self, step):
        self.at = step

    def on_step_end(self, trainer, step, loss):
        if step == self.at:
            raise RuntimeError("the power fails")


OPTIMIZERS = {
    "adamw": lambda p: optim.AdamW(p, lr=0.02, weight_decay=0.1, clip_norm=1.0),
    "sgd": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("every", "crash"), [(None, 13), (1, 9), (4, 3), (4, 12), (4, 23), (7, 19)])
def test_resume_gives_the_bits_of_an_unbroken_run(kind, every, crash, tmp_path):
    """At the end of an epoch, in the middle, on an epoch's last step, before the first checkpoint."""

    def fit(out, crash_at=None, resume=False):
        trainer = new_trainer(OPTIMIZERS[kind], metrics=["accuracy", "f1"])
        callbacks = [] if crash_at is None else [Crash(crash_at)]
        trainer.fit(problem(), problem(1), 4, BATCH, callbacks, out=out, checkpoint_every=every, resume=resume)
        return trainer

    whole = fit(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="the power fails"):
        fit(tmp_path / "broken", crash)
    smelt.rand(3)  # the generator stands elsewhere now
    resumed = fit(tmp_path / "broken", resume=True)
    assert rows(resumed.history) == rows(whole.history)
    assert_same(state(resumed.model), state(whole.model))
    assert resumed.optimizer.steps == whole.optimizer.steps and resumed.steps == whole.steps == 24
    for name in ("history.csv", "history.json", "model.safetensors"):
        assert (tmp_path / "broken" / name).exists()
    assert_same(state(smelt.load(tmp_path / "broken")), state(smelt.load(tmp_path / "whole")))


def test_checkpoints_are_pruned_and_usable(tmp_path):
    trainer = new_trainer()
    trainer.fit(problem(), epochs=3, batch_size=BATCH, out=tmp_path, checkpoint_every=5)
    names = [p.name for p in sorted((tmp_path / "checkpoints").iterdir())]
    assert names == ["step-00000010.safetensors", "step-00000015.safetensors"]
    latest = RunFolder(tmp_path, resume=True).latest_checkpoint()
    assert latest.name == names[-1]
    note = smelt.read_metadata(latest)
    assert note["smelt.kind"] == "checkpoint" and note["smelt.trainer"]["steps"] == 15
    x = smelt.tensor(problem()[0])
    assert smelt.load(latest)(x).shape == (ROWS, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 8}, "batch_size must be that of the checkpoint, 16, got 8"),
        ({"epochs": 9}, "epochs must be that of the checkpoint, 2, got 9"),
        ({"train": problem(0, 80)}, "rows must be that of the checkpoint, 90, got 80"),
        ({"seed": 5}, "seed must be that of the checkpoint, 0, got 5"),
    ],
)
def test_resume_refuses_another_run(change, message, tmp_path):
    options = {"train": problem(), "epochs": 2, "batch_size": BATCH, "out": tmp_path}
    new_trainer().fit(**options)
    seed = change.pop("seed", 0)
    trainer = new_trainer(seed=seed)
    before = state(trainer.model)
    with pytest.raises(ValueError, match=message):
        trainer.fit(**{**options, **change}, resume=True)
    assert_same(state(trainer.model), before)


def test_a_damaged_checkpoint_is_an_error_with_its_path(tmp_path):
    new_trainer().fit(problem(), epochs=2, batch_size=BATCH, out=tmp_path)
    latest = RunFolder(tmp_path, resume=True).latest_checkpoint()
    content = bytearray(latest.read_bytes())
    content[-1] ^= 1
    latest.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(str(latest))} is damaged: sha256"):
        new_trainer().fit(problem(), epochs=2, batch_size=BATCH, out=tmp_path, resume=True)


# ---------------------------------------------------------------------------------------------------------- bad input


def poisoned(value):
    x, y = problem()
    x = x.copy()
    x[17, 2] = value
    return x, y


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_the_row_and_change_nothing(value):
    trainer = new_trainer()
    trainer.step(*problem())
    before = state(trainer.model)  # running statistics among them
    with pytest.raises(ValueError, match=r"inputs must be finite, step 2 has 1 value.*first in row 17 of the batch"):
        trainer.step(*poisoned(value))
    assert_same(state(trainer.model), before)
    trainer.step(*problem())
    assert trainer.steps == 2


def test_a_loss_that_is_not_finite_changes_nothing():
    trainer = new_trainer()
    before = state(trainer.model)
    x, y = problem()
    with pytest.raises(RuntimeError, match=r"loss must be finite, it is (nan|inf) at step 1 with learning rate 0\.02"):
        trainer.step(x * np.float32(3e37), y)
    assert_same(state(trainer.model), before)


def test_data_gone_bad_in_fit_leaves_a_run_to_resume(tmp_path):
    options = {"epochs": 2, "batch_size": BATCH, "out": tmp_path, "checkpoint_every": 1}
    with pytest.raises(ValueError, match=r"inputs must be finite.*first in row 17 of the dataset"):
        new_trainer().fit(poisoned(np.nan), **options)
    assert not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "model.safetensors").exists()
    resumed = new_trainer()
    resumed.fit(problem(), **options, resume=True)
    whole = new_trainer()
    whole.fit(problem(), epochs=2, batch_size=BATCH)
    assert_same(state(resumed.model), state(whole.model))


Y = problem()[1]
BAD_STEPS = {
    "label above": ((ROWS, 6), np.where(Y == 0, 3, Y), IndexError, r"cross_entropy: labels must be in \[0, 3\), got 3"),
    "label below": ((ROWS, 6), Y - 1, IndexError, r"cross_entropy: labels must be in \[0, 3\), got -1"),
    "columns": ((ROWS, 5), Y, ValueError, r"Trainer: layer 0: linear: .*6.*5|Trainer: layer 0: linear: .*5.*6"),
    "rows": ((ROWS, 6), Y[:-1], ValueError, r"Trainer: cross_entropy: .*90.*89|Trainer: cross_entropy: .*89.*90"),
    "float labels": ((ROWS, 6), Y.astype(np.float32), (TypeError, ValueError), r"Trainer: cross_entropy: .*float32"),
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_a_step_that_cannot_be_taken_names_it_and_changes_nothing(name):
    shape, y, kind, message = BAD_STEPS[name]
    trainer = new_trainer()
    before = state(trainer.model)
    with pytest.raises(kind, match=message):
        trainer.step(np.ones(shape, np.float32), y)
    assert_same(state(trainer.model), before)
    assert trainer.steps == 0


def test_shape_errors_name_the_layer_by_its_path():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3)))
    trainer = smelt.Trainer(model)
    with pytest.raises(ValueError, match=r"^Trainer: layer 1\.1: conv2d: weight has 3 input channels, input has 4$"):
        trainer.step(np.ones((2, 8, 8, 1), np.float32), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"input has 28 channels, weight has 1; images are \(N, H, W, C\).*to_nhwc"):
        trainer.step(np.ones((2, 1, 28, 28), np.float32), np.zeros(2, np.int64))


def test_predictions_of_one_column_are_never_broadcast():
    trainer = smelt.Trainer(nn.Linear(6, 1), loss="mse")
    x, y = problem()
    with pytest.raises(ValueError, match=r"mse.*\(90, 1\).*\(90,\)|mse.*\(90,\).*\(90, 1\)"):
        trainer.step(x, y.astype(np.float32))
    trainer.step(x, y.astype(np.float32)[:, None])


X0, Y0 = np.ones((8, 6), np.float32), np.zeros(8, np.int64)
BAD_FITS = {
    "empty dataset": (lambda t: t.fit((X0[:0], Y0[:0])), "the dataset must have at least one row, got none"),
    "empty validation": (lambda t: t.fit((X0, Y0), (X0[:0], Y0[:0])), "the dataset must have at least one row"),
    "empty evaluate": (lambda t: t.evaluate((X0[:0], Y0[:0])), "the dataset must have at least one row"),
    "zero batch": (lambda t: t.fit((X0, Y0), batch_size=0), "batch_size must be a whole number of at least 1, got 0"),
    "half a row": (
        lambda t: t.fit((X0, Y0), batch_size=1.5),
        "batch_size must be a whole number of at least 1, got 1.5",
    ),
    "half an epoch": (lambda t: t.fit((X0, Y0), epochs=1.5), "epochs must be a whole number of at least 1, got 1.5"),
    "zero evaluate batch": (lambda t: t.evaluate((X0, Y0), batch_size=0), "batch_size must be at least 1, got 0"),
    "negative predict batch": (lambda t: t.predict(X0, batch_size=-1), "batch_size must be at least 1, got -1"),
    "no epochs": (lambda t: t.fit((X0, Y0), epochs=0), "epochs must be a whole number of at least 1, got 0"),
    "lengths": (lambda t: t.fit((X0, Y0[:-1])), "x and y must have one length, got 8 and 7"),
    "no targets": (lambda t: t.fit(data.ArrayDataset(X0)), "the dataset must have targets"),
    "patience alone": (lambda t: t.fit((X0, Y0), patience=2), "patience must be at least 1 and needs a validation set"),
    "checkpoints nowhere": (lambda t: t.fit((X0, Y0), checkpoint_every=2), "checkpoint_every .*needs out"),
    "resume nothing": (lambda t: t.fit((X0, Y0), resume=True), "resume needs out"),
    "monitor": (lambda t: t.fit((X0, Y0), (X0, Y0), monitor="val_f2"), "monitor must be one of .*, got 'val_f2'"),
    "drop all": (lambda t: t.fit((X0, Y0), batch_size=9, drop_last=True), "drop_last leaves nothing of 8 rows"),
    "loss": (lambda t: smelt.Trainer(t.model, loss="cross"), "cross_entropy.*'cross'"),
    "optimizer": (lambda t: smelt.Trainer(t.model, optimizer="adamx"), "adamw.*'adamx'"),
    "metric": (lambda t: smelt.Trainer(nn.Linear(6, 3), metrics=["acc"]), "accuracy.*'acc'"),
    "schedule": (lambda t: smelt.Trainer(nn.Linear(6, 3), schedule="cosin").fit((X0, Y0)), "cosine.*'cosin'"),
    "precision": (lambda t: smelt.Trainer(t.model, precision="int4"), "precision must be .*'int4'"),
    "device": (lambda t: smelt.Trainer(t.model, device="tpu"), "tpu"),
}


@pytest.mark.parametrize("name", BAD_FITS)
def test_options_out_of_range_and_unknown_names(name):
    call, message = BAD_FITS[name]
    trainer = new_trainer()
    before = state(trainer.model)
    with pytest.raises(ValueError, match=message):
        call(trainer)
    assert_same(state(trainer.model), before)


def test_out_with_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=rf"{re.escape(str(tmp_path))} must be empty"):
        new_trainer().fit((X0, Y0), out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


# ---------------------------------------------------------------------------------------- callbacks, pictures, folder


def test_callbacks_are_called_in_order_and_can_stop():
    calls = []

    class Record(Callback):
        def on_fit_begin(self, trainer):
            calls.append("begin")

        def on_step_end(self, trainer, step, loss):
            assert loss > 0 and step == trainer.steps
            calls.append(step)
            trainer.stop = step == 8

        def on_epoch_end(self, trainer, row):
            calls.append(row["epoch"] * 100)

        def on_fit_end(self, trainer):
            calls.append("end")

    trainer = new_trainer()
    history = trainer.fit(problem(), epochs=5, batch_size=BATCH, callbacks=[Record()])
    assert calls == ["begin", 1, 2, 3, 4, 5, 6, 100, 7, 8, "end"]
    assert len(history) == 1 and trainer.optimizer.steps == 8


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_run_folder(level, tmp_path, caplog):
    with caplog.at_level(level, logger="smelt"):
        trainer = new_trainer(labels=["a", "b", "c"])
        history = trainer.fit(problem(), problem(1), epochs=2, batch_size=BATCH, out=tmp_path / "run")
    assert len(caplog.records) == (5 if level == logging.INFO else 0)  # two epochs, two checkpoints, the recording
    folder = tmp_path / "run"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {
        "history.csv", "history.json", "log.txt", "model.safetensors",
        "checkpoints/step-00000006.safetensors", "checkpoints/step-00000012.safetensors",
    }  # fmt: skip
    assert json.loads((folder / "history.json").read_text()) == history.rows
    lines = (folder / "history.csv").read_text().splitlines()
    assert lines[0] == ",".join(history.columns) and len(lines) == 3
    assert [line.split(" INFO ")[1].split(":")[0] for line in (folder / "log.txt").read_text().splitlines()][::2] == [
        "epoch 1 of 2", "epoch 2 of 2", "training steps",
    ]  # fmt: skip
    model = smelt.load(folder)
    assert model.labels == ["a", "b", "c"] and not model.training
    assert_same(state(model), state(trainer.model))


def test_pictures_show_something(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    values = [{"epoch": i, "train_loss": 1 / i, "val_loss": 1.5 / i, "train_accuracy": 1 - 0.5 / i} for i in (1, 2, 3)]
    plot_run(tmp_path, History(values), np.diag([5, 3, 2]), ["zero", "one", "two"])
    pictures = sorted((tmp_path / "plots").iterdir())
    assert [p.name for p in pictures] == ["accuracy.png", "confusion_matrix.png", "loss.png"]
    for path in pictures:
        with image.open(path) as picture:
            assert picture.format == "PNG"
            picture.load()
            pixels = np.asarray(picture.convert("RGB"))
        assert min(pixels.shape[:2]) >= 300
        inside = pixels[60:-60, 60:-60].reshape(-1, 3)
        assert len(np.unique(inside, axis=0)) > 10 and (inside != inside[0]).any(1).sum() > 500, f"{path.name} is blank"


# -------------------------------------------------------------------------------------------- processes and terminals

SLOW_RUN = """
import sys, time
import numpy as np
import smelt
from smelt import nn

class Tell(smelt.train.Callback):
    def on_step_end(self, trainer, step, loss):
        if step == 5:
            print("started", flush=True)
        if sys.argv[1] == "slow":
            time.sleep(0.02)
        if sys.argv[1] == "stuck" and step == 6:
            end = time.monotonic() + 60
            while time.monotonic() < end:  # within one step: only a second Ctrl-C ends this
                time.sleep(0.02)
                if step == 6 and not said:
                    said.append(1)
                    print("stuck", flush=True)

said = []
smelt.manual_seed(0)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(256, 8)).astype(np.float32), rng.integers(0, 2, 256)
trainer = smelt.Trainer(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 2)))
resume = sys.argv[1] == "resume"
trainer.fit((x, y), epochs=20, batch_size=16, out=sys.argv[2], callbacks=[Tell()], resume=resume)
"""


def run_script(kind, folder):
    return [sys.executable, "-c", SLOW_RUN, kind, str(folder)]


def test_ctrl_c_ends_after_the_step_with_a_checkpoint_to_go_on_from(tmp_path):
    process = start(run_script("slow", tmp_path / "broken"))
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, "Python's way to end with KeyboardInterrupt"
    found = re.search(r"KeyboardInterrupt: interrupted after step (\d+); go on with resume from (.*)", errors)
    assert found and found[2] == str(tmp_path / "broken")
    latest = RunFolder(tmp_path / "broken", resume=True).latest_checkpoint()
    assert smelt.read_metadata(latest)["smelt.trainer"]["taken"] == int(found[1]) >= 5
    assert not list((tmp_path / "broken").rglob("*.tmp"))
    for kind, folder in (("resume", "broken"), ("whole", "whole")):
        python(SLOW_RUN.replace("sys.argv[1]", repr(kind)).replace("sys.argv[2]", repr(folder)), cwd=tmp_path)
    assert_same(state(smelt.load(tmp_path / "broken")), state(smelt.load(tmp_path / "whole")))


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    process = start(run_script("stuck", tmp_path / "run"))
    assert process.stdout.readline() + process.stdout.readline() == "started\nstuck\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)  # the step is not over
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT and errors.rstrip().endswith("KeyboardInterrupt")
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_interrupt_leaves_handlers_as_they_were(tmp_path):
    """Its own handler is gone after a run, also after one that failed; a handler of the caller's stays in force."""
    before = signal.getsignal(signal.SIGINT)
    seen = []

    class Look(Callback):
        def on_step_end(self, trainer, step, loss):
            seen.append(signal.getsignal(signal.SIGINT))
            if step == 2:
                raise RuntimeError("stop here")

    def mine(number, frame):
        pass

    try:
        for handler in (signal.default_int_handler, mine):
            signal.signal(signal.SIGINT, handler)
            with pytest.raises(RuntimeError, match="stop here"):
                new_trainer().fit(problem(), epochs=1, batch_size=BATCH, callbacks=[Look()])
            assert signal.getsignal(signal.SIGINT) is handler
        assert seen[0] is not signal.default_int_handler and seen[-1] is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_bar_is_shown_on_a_terminal_and_nowhere_else(tmp_path):
    command = run_script("slow", tmp_path / "piped")
    piped = start([*command[:2], SLOW_RUN.replace("epochs=20", "epochs=2"), *command[3:]])
    assert piped.communicate(timeout=60) == ("started\n", "")
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = run_script("slow", tmp_path / "terminal")
    shown = start([*command[:2], SLOW_RUN.replace("epochs=20", "epochs=2"), *command[3:]], stderr=terminal)
    os.close(terminal)
    text = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        text += part
    os.close(main)
    output, _ = shown.communicate(timeout=60)
    assert shown.returncode == 0 and output == "started\n"
    assert re.search(rb"epoch 2/2.*loss \d\.\d+, lr \d", text) and b"32" in text


def test_rows_that_the_loss_ignores_do_not_count(rng):
    x, y = rng.normal(size=(12, 2)).astype(np.float32), rng.integers(0, 3, 12)
    padded_x, padded_y = np.concatenate([x, x[:5]]), np.concatenate([y, np.full(5, 7)])
    order = rng.permutation(17)
    for loss, ignored in ((nn.CrossEntropyLoss(ignore_index=7), 7), ("cross_entropy", -100)):
        trainer = smelt.Trainer(nn.Linear(2, 3), loss=loss, metrics=["accuracy", "confusion_matrix"])
        labels = np.where(padded_y == 7, ignored, padded_y)
        want = trainer.evaluate((x, y), batch_size=4)
        got = trainer.evaluate((padded_x[order], labels[order]), batch_size=4)
        assert got["loss"] == pytest.approx(want["loss"], rel=12 * 2.0**-23)  # other batches: other sums of 12 terms
        assert got["accuracy"] == want["accuracy"]
        np.testing.assert_array_equal(got["confusion_matrix"], want["confusion_matrix"])
        right = 12 * trainer.fit((padded_x, labels), epochs=1, batch_size=17).rows[-1]["train_accuracy"]
        assert right == pytest.approx(round(right))


def test_names_must_cover_the_classes_and_labels_may_be_unsigned():
    x, y = np.ones((6, 2), np.float32), np.arange(6) % 3
    with pytest.raises(ValueError, match="labels must name every class, got 2 names and class 2"):
        smelt.Trainer(nn.Linear(2, 3), labels=["a", "b"]).fit((x, y), epochs=1)
    for dtype in (np.uint8, np.uint16, np.uint32, np.uint64):
        smelt.Trainer(nn.Linear(2, 3), labels=["a", "b", "c"]).fit((x, y.astype(dtype)), epochs=1, batch_size=3)
