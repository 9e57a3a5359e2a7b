"""What stands on the pictures of a run: titles, legend, plain numbers on the logarithmic axis."""

import numpy as np
import pytest

from smelt.train import History, plot_run, plots

pytest.importorskip("matplotlib")


@pytest.fixture
def figures(monkeypatch, tmp_path):
    """The figures that plot_run makes, by the names of their files."""
    made = []
    plain = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda **options: made.append(plain(**options)) or made[-1])

    def draw(rows, matrix, **options):
        made.clear()
        plot_run(tmp_path, History(rows), matrix, ["a", "b"], **options)
        names = ["loss", "accuracy", "confusion_matrix"] if len(made) == 3 else ["loss", "confusion_matrix"]
        return dict(zip(names, (figure.axes[0] for figure in made)))

    return draw


ROWS = [{"epoch": i, "train_loss": 3 / i**2, "val_loss": 2 / i**2, "train_accuracy": 1 - 0.5 / i} for i in (1, 2, 3)]


def test_pictures_say_what_they_show(figures):
    axes = figures(ROWS, np.array([[5, 1], [0, 4]]), smoothing=0.1)
    assert [a.get_title() for a in axes.values()] == ["loss by epoch", "accuracy by epoch", "9 of 10 right"]
    legend = [text.get_text() for text in axes["loss"].get_legend().get_texts()]
    assert legend == ["training (with label smoothing 0.1)", "validation (with label smoothing 0.1)"]
    assert [text.get_text() for text in axes["accuracy"].get_legend().get_texts()] == ["training"]
    assert axes["loss"].get_xlabel() == "epoch" and axes["loss"].get_ylabel() == "loss"
    legend = figures(ROWS, np.eye(2, dtype=int))["loss"].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]


def test_the_axis_of_losses_has_plain_numbers(figures):
    axis = figures(ROWS, np.eye(2, dtype=int))["loss"]
    assert axis.get_yscale() == "log"
    low, high = axis.get_ylim()
    ticks = [(t.get_position()[1], t.get_text()) for t in axis.get_yticklabels() if low <= t.get_position()[1] <= high]
    assert len(ticks) >= 4 and all(text == f"{value:g}" for value, text in ticks)
    assert not any(text.get_text() for text in axis.get_yticklabels(minor=True))
    without = [{"epoch": 1, "train_loss": 0.0}]  # no logarithm
    assert figures(without, np.eye(2, dtype=int))["loss"].get_yscale() == "linear"
