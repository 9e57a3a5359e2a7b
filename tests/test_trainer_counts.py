"""Means over an epoch or a dataset are over the labels that count, whatever the batches: in fit, evaluate and metrics."""

import functools

import numpy as np
import pytest

import smelt
from smelt import losses, metrics, nn, optim
from smelt.train import Callback

CLASSES = 5
WEIGHT = np.linspace(0.5, 2, CLASSES).astype(np.float32)
LOSSES = {
    "by name": lambda: "cross_entropy",
    "ignore_index": lambda: nn.CrossEntropyLoss(ignore_index=3),
    "smoothed": lambda: functools.partial(losses.cross_entropy, label_smoothing=0.1),
    "weighted": lambda: nn.CrossEntropyLoss(weight=smelt.tensor(WEIGHT)),
    "both": lambda: nn.CrossEntropyLoss(weight=smelt.tensor(WEIGHT), ignore_index=0),
    "weighted function": lambda: functools.partial(losses.cross_entropy, weight=smelt.tensor(WEIGHT), ignore_index=2),
}
IGNORED = {"by name": -100, "ignore_index": 3, "smoothed": -100, "weighted": -100, "both": 0, "weighted function": 2}


def table():
    """Logits of a table: they don't depend on the batch."""
    smelt.manual_seed(1)
    return nn.Sequential(nn.Embedding(7, CLASSES))


def problem(shape, ignored, seed=0):
    """Indices and labels; rows without an ignored label, rows with some, and one in which all are."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 7, shape), rng.integers(0, CLASSES, shape)
    y[y == ignored] = (ignored + 1) % CLASSES
    y[len(y) // 2 :][rng.random(y[len(y) // 2 :].shape) < 0.6] = ignored
    y[-1] = y[3] = ignored
    return x, y


def trainer_of(loss, **options):
    model = table()
    return smelt.Trainer(model, loss=loss, optimizer=optim.SGD(model.parameters(), lr=0.0), **options)


@pytest.mark.parametrize("shape", [(24,), (24, 6)], ids=["1-d", "2-d"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_does_not_depend_on_the_batch_size(name, shape):
    loss, ignored = LOSSES[name](), IGNORED[name]
    x, y = problem(shape, ignored)
    call = losses.cross_entropy if loss == "cross_entropy" else loss
    want = call(table()(smelt.tensor(x)), smelt.tensor(y)).item()  # one batch: the definition
    want_accuracy = (table()(smelt.tensor(x)).argmax(-1).numpy() == y)[y != ignored].mean()
    # Sums of at most 144 float32 terms, none negative, in another order.
    same = functools.partial(pytest.approx, rel=2 * y.size * 2.0**-23)
    for batch_size in (1, 2, 5, 24):
        trainer = trainer_of(loss, metrics=["accuracy"])
        report = trainer.evaluate((x, y), batch_size)
        assert report["loss"] == same(want) and report["accuracy"] == pytest.approx(want_accuracy)
        history = trainer.fit((x, y), epochs=3, batch_size=batch_size, shuffle=False)
        for row in history.rows:
            assert row["train_loss"] == same(want) and row["train_accuracy"] == pytest.approx(want_accuracy)
        if batch_size <= 5:  # the later steps come from a recording
            assert "replay" in trainer.recording, trainer.recording


def test_a_loss_of_your_own_names_the_label_that_it_ignores():
    def loss(outputs, y):
        return losses.cross_entropy(outputs.reshape(-1, CLASSES), y.reshape(-1))

    x, y = problem((24, 6), -100)
    want = losses.cross_entropy(table()(smelt.tensor(x)), smelt.tensor(y)).item()
    loss.ignore_index = -100
    for batch_size in (2, 24):
        assert trainer_of(loss).evaluate((x, y), batch_size)["loss"] == pytest.approx(want, rel=288 * 2.0**-23)


class Steps(Callback):
    def __init__(self):
        self.numbers = []

    def on_step_end(self, trainer, step, loss):
        assert np.isfinite(loss)
        self.numbers.append(step)


def test_a_batch_in_which_no_label_counts_is_left_out(tmp_path):
    x, y = problem((24, 6), -100)
    y[4:8] = -100
    there = np.r_[0:4, 8:24]

    def fit(rows, **options):
        model, steps = table(), Steps()
        trainer = smelt.Trainer(model, lr=0.1, metrics=["accuracy"])
        fitted = {"epochs": 2, "batch_size": 4, "shuffle": False, "callbacks": [steps], **options}
        return trainer, trainer.fit((x[rows], y[rows]), **fitted), steps.numbers

    trainer, history, numbers = fit(slice(None), out=tmp_path / "run", checkpoint_every=1)
    without, expected, _ = fit(there)
    assert numbers == list(range(1, 11)) and history["step"] == expected["step"] == [5, 10]
    assert history["train_loss"] == expected["train_loss"]
    assert history["train_accuracy"] == expected["train_accuracy"]
    np.testing.assert_array_equal(trainer.model[0].weight.numpy(), without.model[0].weight.numpy())
    assert "no label counts in 1 batches of the epoch: left out" in (tmp_path / "run" / "log.txt").read_text()
    _, again, _ = fit(slice(None), epochs=2, out=tmp_path / "run", checkpoint_every=1, resume=True)
    assert again["train_loss"] == history["train_loss"]
    assert np.isnan(trainer.evaluate((x[4:8], y[4:8]))["loss"])  # a mean of nothing


def test_labels_that_are_all_ignored_are_refused():
    x, y = problem((8, 6), -100)
    with pytest.raises(
        ValueError, match=r"^Trainer: a label must count, every label of the dataset is -100, which the loss"
    ):
        trainer_of("cross_entropy").fit((x, np.full_like(y, -100)), epochs=1)
    trainer = trainer_of(nn.CrossEntropyLoss(ignore_index=3))
    with pytest.raises(ValueError, match=r"^Trainer: a label must count, every label of the batch is 3, which the"):
        trainer.step(smelt.tensor(x), smelt.full(y.shape, 3, dtype="int64"))
    assert trainer.steps == 0


METRICS = [metrics.Accuracy, lambda **o: metrics.TopK(2, **o), metrics.ConfusionMatrix, metrics.Precision, metrics.Recall,
           metrics.F1]  # fmt: skip


@pytest.mark.parametrize("make", METRICS)
@pytest.mark.parametrize("ignored", [-100, 255, 1])
def test_metrics_without_the_rows_of_a_label(make, ignored, rng):
    scores, y = rng.normal(size=(4, 6, 3)).astype(np.float32), rng.integers(0, 3, (4, 6))
    y[0] = ignored
    want, got = make(), make(ignore_index=ignored)
    want.update(scores[y != ignored], y[y != ignored])
    for part in (slice(0, 1), slice(1, 4)):  # of the first batch nothing counts
        got.update(smelt.tensor(scores[part]), smelt.tensor(y[part]))
    np.testing.assert_array_equal(got.compute(), want.compute())
    assert "ignore_index" not in got.state()
    again = make(ignore_index=ignored)
    again.load_state(got.state())
    np.testing.assert_array_equal(again.compute(), want.compute())
    if not isinstance(want, metrics.TopK):
        classes = make(ignore_index=ignored)
        classes.update(scores.argmax(-1), y)
        np.testing.assert_array_equal(np.sum(classes.compute()), np.sum(want.compute()))
    if ignored != 1:
        with pytest.raises(
            ValueError, match=rf"labels must be in \[0, 3\), got {ignored}; if .* give ignore_index={ignored}"
        ):
            make().update(scores, y)
    with pytest.raises(ValueError, match=r"outputs must be \(N, classes\)"):
        got.update(scores[:2], y)


def test_metrics_refuse_a_label_that_is_none():
    with pytest.raises(TypeError, match="Accuracy: ignore_index must be a whole number"):
        metrics.Accuracy(ignore_index="padding")
    with pytest.raises(
        ValueError, match="classes must not be negative, got -1; ignore_index leaves rows of one label out"
    ):
        metrics.ConfusionMatrix().update([0, 1], [0, -1])


def test_data_of_two_inputs():
    x = np.ones((4, 5, 2), np.float32)
    with pytest.raises(
        ValueError, match=r"x must be one array, got a tuple of 2 whose shapes differ; a model of several"
    ):
        smelt.Trainer(nn.Linear(2, 2)).fit(((x, np.ones(4)), np.zeros(4, np.int64)), epochs=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classes_are_integers(dtype):
    data = np.ones((4, 2), np.float32), np.zeros(4, dtype)
    for call in (lambda t: t.fit(data, epochs=1), lambda t: t.evaluate(data)):
        with pytest.raises(TypeError, match=rf'labels must be integers, got {dtype}; use y.astype\("int64"\)'):
            call(smelt.Trainer(nn.Linear(2, 2)))


def test_class_weights_may_be_an_array():
    x, y = np.eye(4, dtype="float32"), np.array([0, 1, 2, 0])
    weight = np.array([1.0, 2.0, 0.5, 1.0], "float32")
    values = []
    for given in (weight, smelt.tensor(weight)):
        for loss in (nn.CrossEntropyLoss(weight=given), functools.partial(losses.cross_entropy, weight=given)):
            smelt.manual_seed(0)
            trainer = smelt.Trainer(nn.Linear(4, 4), loss=loss)
            values.append(
                [
                    *trainer.fit((x, y), epochs=2, batch_size=3)["train_loss"],
                    trainer.evaluate((x, y), batch_size=3)["loss"],
                ]
            )
    np.testing.assert_allclose(values, [values[0]] * 4, rtol=1e-6)


def test_a_batch_of_classes_without_weight_is_left_out():
    x, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 2])
    trainer = smelt.Trainer(nn.Linear(4, 4), loss=nn.CrossEntropyLoss(weight=smelt.tensor([0.0, 1.0, 1.0, 1.0])))
    history = trainer.fit((x, y), epochs=1, batch_size=2)
    assert np.isfinite(history["train_loss"]).all()
    assert np.isfinite(trainer.evaluate((x, y), batch_size=2)["loss"])
    with pytest.raises(ValueError, match="or of a class without weight"):
        trainer.step(x[:2], y[:2])


def test_an_ignore_index_is_a_number():
    def loss(outputs, labels):
        return losses.cross_entropy(outputs, labels)

    loss.ignore_index = "pad"
    with pytest.raises(TypeError, match=r"^Trainer: the loss's ignore_index must be a whole number, got 'pad'$"):
        smelt.Trainer(nn.Linear(4, 4), loss=loss).fit((np.eye(4, dtype="float32"), np.arange(4)), epochs=1)
