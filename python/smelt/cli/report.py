"""What a classifier's test shows, and how it is printed."""

from __future__ import annotations

from typing import Any

from .. import losses, metrics
from ..data import ArrayDataset
from ..train import Trainer

NAMES = ["accuracy", "precision", "recall", "f1", "confusion_matrix"]


def measure(trainer: Trainer, test: ArrayDataset) -> dict[str, Any]:
    """Cross entropy, without label smoothing, and the usual metrics over a test set, as JSON values: those of the model as it
    is saved and used, in float32."""
    kept = trainer.loss, trainer.metrics, trainer.precision
    trainer.loss, trainer.metrics = losses.cross_entropy, [metrics.get(name) for name in NAMES]
    trainer.precision = "float32"
    try:
        report = trainer.evaluate(test)
    finally:
        trainer.loss, trainer.metrics, trainer.precision = kept
    matrix = report.pop("confusion_matrix")
    right = int(matrix.trace())
    return {**report, "right": right, "rows": len(test), "confusion_matrix": matrix.tolist()}


def last_line(report: dict[str, Any]) -> str:
    """The result in one line."""
    return (
        f"test accuracy {100 * report['accuracy']:.2f} % ({report['right']} of {report['rows']}), "
        f"precision {report['precision']:.2f}, recall {report['recall']:.2f}, F1 {report['f1']:.2f}"
    )
