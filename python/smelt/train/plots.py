"""Pictures of a run, with Matplotlib (``pip install "smelt[plot]"``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .history import History

__all__ = ["plot_confusion_matrix", "plot_curves", "plot_run"]


def _figure(**kwargs: Any) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('plots: need Matplotlib: pip install "smelt[plot]"') from None
    return Figure(layout="constrained", **kwargs)


def plot_curves(history: History, quantity: str, path: Any, title: str = "", smoothing: float = 0.0) -> None:
    """Draws a quantity of training and validation over the epochs.

    Args:
        history: the rows.
        quantity: such as ``"loss"`` or ``"accuracy"``.
        path: the PNG file.
        title: stands above, by default the quantity.
        smoothing: the label smoothing that the training loss includes, for its name in the legend.

    Raises:
        ImportError: Matplotlib is missing.

    Example:
        >>> import tempfile, pathlib
        >>> h = smelt.train.History([{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": 0.5}])
        >>> smelt.train.plot_curves(h, "loss", pathlib.Path(tempfile.mkdtemp()) / "loss.png")
    """
    figure = _figure(figsize=(6, 4))
    axes = figure.add_subplot()
    epochs = history["epoch"]
    for part, label in (("train", "training"), ("val", "validation")):
        name = f"{part}_{quantity}"
        if name in history.columns:
            if quantity == "loss" and smoothing:
                label += f" (with label smoothing {smoothing:g})"
            axes.plot(epochs, history[name], marker="o", markersize=3, label=label)
    if quantity == "loss" and all(
        v > 0 for n in ("train_loss", "val_loss") if n in history.columns for v in history[n]
    ):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title or quantity)
    axes.set_xlabel("epoch")
    axes.set_ylabel(quantity)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def plot_confusion_matrix(matrix: Any, labels: list[str] | None, path: Any) -> None:
    """Draws how often each class (row) was taken for each class (column).

    Args:
        matrix: (classes, classes) counts.
        labels: names of the classes.
        path: the PNG file.

    Raises:
        ImportError: Matplotlib is missing.

    Example:
        >>> import tempfile, pathlib
        >>> smelt.train.plot_confusion_matrix([[5, 1], [0, 4]], ["a", "b"], pathlib.Path(tempfile.mkdtemp()) / "c.png")
    """
    counts = np.asarray(matrix)
    n = len(counts)
    figure = _figure(figsize=(max(4.0, 0.5 * n + 1.5),) * 2)
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i in range(n):
        for j in range(n):
            if counts[i, j]:
                axes.text(
                    j, i, str(counts[i, j]), ha="center", va="center", color="white" if share[i, j] > 0.5 else "black"
                )
    axes.set_title(f"{int(counts.trace())} of {int(counts.sum())} right")
    names = labels or [str(i) for i in range(n)]
    axes.set_xticks(range(n), names, rotation=0 if max(map(len, names)) < 4 else 45)
    axes.set_yticks(range(n), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def plot_run(folder: Any, history: History, matrix: Any, labels: list[str] | None, smoothing: float = 0.0) -> None:
    """Draws ``plots/loss.png``, ``plots/accuracy.png`` and ``plots/confusion_matrix.png`` of a run folder.

    Args:
        folder: the run folder.
        history: the rows.
        matrix: the test set's confusion matrix.
        labels: names of the classes.
        smoothing: the label smoothing that the losses include.

    Raises:
        ImportError: Matplotlib is missing.

    Example:
        >>> import tempfile
        >>> h = smelt.train.History([{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5}])
        >>> smelt.train.plot_run(tempfile.mkdtemp(), h, [[1, 0], [0, 1]], None)
    """
    plots = Path(folder) / "plots"
    plot_curves(history, "loss", plots / "loss.png", "loss by epoch", smoothing)
    if any(name.endswith("_accuracy") for name in history.columns):
        plot_curves(history, "accuracy", plots / "accuracy.png", "accuracy by epoch")
    plot_confusion_matrix(matrix, labels, plots / "confusion_matrix.png")
