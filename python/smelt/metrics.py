"""Metrics: three verbs each, ``reset``, ``update`` and ``compute``.

``update`` takes the model's outputs (scores (N, classes), or predicted classes (N,)) and the labels (N,); leading axes are
flattened. Scores that are NaN are an error. ``ignore_index`` names a label that does not count, such as that of padding.
Values come from counts over all rows, so they do not depend on the batch size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._core import Tensor
from .functions._types import Array, as_count

__all__ = [
    "F1",
    "Accuracy",
    "ConfusionMatrix",
    "Loss",
    "Metric",
    "Precision",
    "Recall",
    "TopK",
    "get",
]


def _array(x: Any) -> Array:
    out: Array = np.asarray(x.numpy() if isinstance(x, Tensor) else x)
    return out


def _labels(name: str, labels: Any) -> Array:
    out = _array(labels).reshape(-1)
    if out.dtype.kind not in "iub":
        raise TypeError(f"{name}: labels must be integers, got {out.dtype}")
    return np.asarray(out, np.int64)


def _scores(name: str, outputs: Array, labels: Array, or_classes: str = "") -> Array:
    """Scores (N, classes), one row for each label; the labels are classes that have a score, and no score is NaN."""
    if outputs.ndim < 2 or outputs.size != labels.size * outputs.shape[-1]:
        raise ValueError(
            f"{name}: outputs must be (N, classes){or_classes} for {labels.size} labels, got {outputs.shape}"
        )
    classes = outputs.shape[-1]
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(
            f"{name}: labels must be in [0, {classes}), got {wrong[0]}; if that label does not count, "
            f"give ignore_index={wrong[0]}"
        )
    scores = outputs.reshape(labels.size, classes)
    nan = np.flatnonzero(np.isnan(scores).any(1))
    if nan.size:
        raise ValueError(f"{name}: scores must not be NaN, those of {nan.size} rows are (first row {nan[0]})")
    return scores


def _predicted(name: str, outputs: Any, labels: Array) -> Array:
    """Predicted classes from scores or classes, one for each label."""
    given = _array(outputs)
    if given.dtype.kind in "iub" and given.size == labels.size:
        return np.asarray(given.reshape(-1), np.int64)
    return np.asarray(_scores(name, given, labels, " or classes (N,)").argmax(1))


def _as_label(name: str, ignore_index: int | None) -> int | None:
    return None if ignore_index is None else as_count(f"{name}: ignore_index", ignore_index)


def _counted(name: str, outputs: Any, labels: Any, ignore_index: int | None) -> tuple[Array, Array]:
    """Outputs and labels (N,) without the rows whose label does not count."""
    given, y = _array(outputs), _labels(name, labels)
    mask = y != ignore_index
    if ignore_index is None or mask.all():
        return given, y
    if given.dtype.kind in "iub" and given.size == y.size:
        return given.reshape(-1)[mask], y[mask]
    if given.ndim < 2 or given.size != y.size * given.shape[-1]:
        return given, y  # the error that follows has the shapes
    return given.reshape(y.size, given.shape[-1])[mask], y[mask]


class Metric:
    """A number about predictions, gathered batch by batch. Derive a class and define the three verbs.

    Example:
        >>> class Mistakes(metrics.Metric):
        ...     name = "mistakes"
        ...
        ...     def reset(self):
        ...         self.count = 0
        ...
        ...     def update(self, outputs, labels):
        ...         self.count += int((outputs.argmax(-1) != labels).sum())
        ...
        ...     def compute(self):
        ...         return self.count
        >>> m = Mistakes()
        >>> m.reset()
        >>> m.update(smelt.eye(2), smelt.tensor([0, 0]))
        >>> m.compute()
        1
    """

    name = "metric"
    ignore_index: int | None = None  # label of rows that do not count, where a metric has one

    def reset(self) -> None:
        """Forgets everything."""
        raise TypeError(f"{type(self).__name__}: a derived class must define reset")

    def update(self, outputs: Any, labels: Any) -> None:
        """Takes in a batch.

        Args:
            outputs: scores (N, classes) or classes (N,).
            labels: integers (N,).
        """
        raise TypeError(f"{type(self).__name__}: a derived class must define update")

    def compute(self) -> Any:
        """The value over all batches since the reset."""
        raise TypeError(f"{type(self).__name__}: a derived class must define compute")

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of a metric in the middle of an epoch: JSON values.

        Example:
            >>> metrics.Accuracy().state()
            {'right': 0, 'total': 0}
        """
        return {
            k: v.tolist() if isinstance(v, np.ndarray) else v
            for k, v in self.__dict__.items()
            if k not in ("name", "ignore_index")
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from :meth:`state`.

        Args:
            state: the saved values.

        Example:
            >>> m = metrics.Accuracy()
            >>> m.load_state({"right": 3, "total": 4})
            >>> m.compute()
            0.75
        """
        for key, value in state.items():
            old = self.__dict__.get(key)
            if isinstance(old, np.ndarray):  # a list without elements does not show how many axes there were
                value = np.array(value, old.dtype) if value else np.zeros((0,) * old.ndim, old.dtype)
            self.__dict__[key] = value


class Accuracy(Metric):
    """The share of rows whose class is right.

    Args:
        ignore_index: label of rows that do not count, such as -100; None: all count.

    Example:
        >>> m = metrics.Accuracy()
        >>> m.update(smelt.eye(3), smelt.tensor([0, 1, 1]))
        >>> round(m.compute(), 3)
        0.667
    """

    name = "accuracy"

    def __init__(self, ignore_index: int | None = None):
        self.ignore_index = _as_label("Accuracy", ignore_index)
        self.reset()

    def reset(self) -> None:
        self.right, self.total = 0, 0

    def update(self, outputs: Any, labels: Any) -> None:
        given, y = _counted(self.name, outputs, labels, self.ignore_index)
        self.right += int((_predicted(self.name, given, y) == y).sum())
        self.total += y.size

    def compute(self) -> float:
        return self.right / self.total if self.total else float("nan")


class TopK(Metric):
    """The share of rows whose label is among the k highest scores; ties count for the row.

    Args:
        k: how many scores count, from 1 to the number of classes.
        ignore_index: label of rows that do not count, such as -100; None: all count.

    Example:
        >>> m = metrics.TopK(2)
        >>> m.update(smelt.tensor([[0.1, 0.5, 0.4]]), smelt.tensor([2]))
        >>> m.compute()
        1.0
    """

    def __init__(self, k: int = 5, ignore_index: int | None = None):
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ValueError(f"TopK: k must be a whole number of at least 1, got {k!r}")
        self.k, self.name = k, f"top{k}"
        self.ignore_index = _as_label("TopK", ignore_index)
        self.reset()

    def reset(self) -> None:
        self.right, self.total = 0, 0

    def update(self, outputs: Any, labels: Any) -> None:
        given, y = _counted(self.name, outputs, labels, self.ignore_index)
        scores = _scores(self.name, given, y)
        if self.k > scores.shape[1]:
            raise ValueError(f"{self.name}: k must be at most the number of classes, {scores.shape[1]}, got {self.k}")
        own = scores[np.arange(y.size), y]
        self.right += int(((scores > own[:, None]).sum(1) < self.k).sum())
        self.total += y.size

    def compute(self) -> float:
        return self.right / self.total if self.total else float("nan")


class ConfusionMatrix(Metric):
    """How often each class (row) was taken for each class (column).

    Args:
        classes: how many there are; found from what is seen by default.
        ignore_index: label of rows that do not count, such as -100; None: all count.

    Example:
        >>> m = metrics.ConfusionMatrix()
        >>> m.update(smelt.tensor([0, 1, 1]), smelt.tensor([0, 1, 0]))
        >>> m.compute().tolist()
        [[1, 1], [0, 1]]
    """

    name = "confusion_matrix"

    def __init__(self, classes: int | None = None, ignore_index: int | None = None):
        self.classes = classes
        self.ignore_index = _as_label("ConfusionMatrix", ignore_index)
        self.reset()

    def reset(self) -> None:
        n = self.classes or 0
        self.matrix = np.zeros((n, n), np.int64)

    def update(self, outputs: Any, labels: Any) -> None:
        scores, y = _counted(self.name, outputs, labels, self.ignore_index)
        p = _predicted(self.name, scores, y)
        seen = scores.shape[-1] if scores.dtype.kind == "f" else 0
        highest = int(max(y.max(initial=-1), p.max(initial=-1))) + 1
        if min(y.min(initial=0), p.min(initial=0)) < 0:
            raise ValueError(
                f"{self.name}: classes must not be negative, got {int(min(y.min(), p.min()))}; "
                "ignore_index leaves rows of one label out"
            )
        if self.classes is not None and highest > self.classes:
            raise ValueError(f"{self.name}: classes must be in [0, {self.classes}), got {highest - 1}")
        n = max(highest, seen, len(self.matrix))
        if n > len(self.matrix):
            self.matrix = np.pad(self.matrix, (0, n - len(self.matrix)))
        self.matrix += np.bincount(y * n + p, minlength=n * n).reshape(n, n)

    def compute(self) -> Array:
        return np.array(self.matrix)


class _FromCounts(Metric):
    """Precision, recall and F1: one value of each class, averaged."""

    def __init__(self, average: str | None = "macro", ignore_index: int | None = None):
        if average not in ("micro", "macro", "weighted", None):
            raise ValueError(f"{self.name}: average must be 'micro', 'macro', 'weighted' or None, got {average!r}")
        self.average = average
        self._confusion = ConfusionMatrix(ignore_index=_as_label(type(self).__name__, ignore_index))
        self._confusion.name = self.name  # for its errors

    def reset(self) -> None:
        self._confusion.reset()

    def update(self, outputs: Any, labels: Any) -> None:
        self._confusion.update(outputs, labels)

    def state(self) -> dict[str, Any]:
        return self._confusion.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self._confusion.load_state(state)

    @staticmethod
    def _ratio(hits: Array, predicted: Array, actual: Array) -> Array:
        raise TypeError("a derived class must define _ratio")

    def compute(self) -> Any:
        m = self._confusion.matrix
        hits, predicted, actual = np.diag(m).astype(float), m.sum(0).astype(float), m.sum(1).astype(float)
        if m.sum() == 0:
            return float("nan")
        if self.average == "micro":
            total = np.array([hits.sum()]), np.array([predicted.sum()]), np.array([actual.sum()])
            return float(self._ratio(*total)[0])
        each = self._ratio(hits, predicted, actual)
        present = (predicted + actual) > 0
        if self.average is None:
            return [float(v) for v in each]
        if self.average == "weighted":
            return float((each * actual).sum() / actual.sum())
        return float(each[present].mean())


def _divide(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


class Precision(_FromCounts):
    """Of the rows given to a class, the share that belongs there; 0 for a class never given.

    Args:
        average: ``"macro"`` (mean over classes that occur), ``"weighted"`` (by their rows), ``"micro"`` (all rows
            together), or None for a list.
        ignore_index: label of rows that do not count, such as -100; None: all count.

    Example:
        >>> m = metrics.Precision()
        >>> m.update(smelt.tensor([0, 1, 1]), smelt.tensor([0, 1, 0]))
        >>> m.compute()
        0.75
    """

    name = "precision"

    @staticmethod
    def _ratio(hits: Array, predicted: Array, actual: Array) -> Array:
        return _divide(hits, predicted)


class Recall(_FromCounts):
    """Of the rows of a class, the share that was found; 0 for a class without rows.

    Args:
        average: ``"macro"`` (mean over classes that occur), ``"weighted"`` (by their rows), ``"micro"`` (all rows
            together), or None for a list.
        ignore_index: label of rows that do not count, such as -100; None: all count.

    Example:
        >>> m = metrics.Recall()
        >>> m.update(smelt.tensor([0, 1, 1]), smelt.tensor([0, 1, 0]))
        >>> m.compute()
        0.75
    """

    name = "recall"

    @staticmethod
    def _ratio(hits: Array, predicted: Array, actual: Array) -> Array:
        return _divide(hits, actual)


class F1(_FromCounts):
    """The harmonic mean of precision and recall, 2 hits / (given + rows), of each class.

    Args:
        average: ``"macro"`` (mean over classes that occur), ``"weighted"`` (by their rows), ``"micro"`` (all rows
            together), or None for a list.
        ignore_index: label of rows that do not count, such as -100; None: all count.

    Example:
        >>> m = metrics.F1()
        >>> m.update(smelt.tensor([0, 1, 1]), smelt.tensor([0, 1, 0]))
        >>> round(m.compute(), 4)
        0.6667
    """

    name = "f1"

    @staticmethod
    def _ratio(hits: Array, predicted: Array, actual: Array) -> Array:
        return _divide(2 * hits, predicted + actual)


class Loss(Metric):
    """The mean of a loss over rows, from means over batches.

    Example:
        >>> m = metrics.Loss()
        >>> m.add(2.0, rows=3)
        >>> m.add(1.0, rows=1)
        >>> m.compute()
        1.75
    """

    name = "loss"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.sum: float = 0.0
        self.rows: float = 0

    def add(self, mean: float, rows: float) -> None:
        """Takes in a batch's mean.

        Args:
            mean: the loss averaged over the batch.
            rows: how many rows, or labels, that is the mean of; of a weighted mean the sum of weights.

        Example:
            >>> metrics.Loss().add(0.5, rows=2)
        """
        self.sum += mean * rows
        self.rows += rows

    def update(self, outputs: Any, labels: Any) -> None:
        self.add(float(_array(outputs).mean()), _array(outputs).size)

    def compute(self) -> float:
        return self.sum / self.rows if self.rows else float("nan")


_BY_NAME: dict[str, type[Metric]] = {
    "accuracy": Accuracy,
    "precision": Precision,
    "recall": Recall,
    "f1": F1,
    "confusion_matrix": ConfusionMatrix,
}


def get(metric: str | Metric) -> Metric:
    """A metric by name; an object is returned as it is.

    Args:
        metric: ``"accuracy"``, ``"precision"``, ``"recall"``, ``"f1"`` (these three macro-averaged),
            ``"confusion_matrix"``, ``"top1"``, ``"top2"`` ..., or a :class:`Metric`.

    Returns:
        The metric.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> metrics.get("top3").name
        'top3'
    """
    if isinstance(metric, Metric):
        return metric
    if metric in _BY_NAME:
        return _BY_NAME[metric]()
    if isinstance(metric, str) and metric.startswith("top") and metric[3:].isdigit():
        return TopK(int(metric[3:]))
    raise ValueError(f"metrics: must be one of {', '.join(_BY_NAME)}, top<k> or a Metric, got {metric!r}")
