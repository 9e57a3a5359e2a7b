"""Which labels of a batch the loss counts, and what its mean over the batch weighs in a mean over batches."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import losses, nn
from .._core import Tensor
from ..functions._types import Array


def _cross_entropy(loss: Any) -> dict[str, Any] | None:
    """The options of a cross-entropy; None for other losses."""
    if loss is losses.cross_entropy:
        return {}
    if isinstance(loss, nn.CrossEntropyLoss):
        return {"weight": loss.weight, "ignore_index": loss.ignore_index, "reduction": loss.reduction}
    if isinstance(loss, functools.partial) and loss.func is losses.cross_entropy and not loss.args:
        return loss.keywords
    return None


def takes_classes(loss: Any) -> bool:
    """Whether targets are classes, whole numbers."""
    return _cross_entropy(loss) is not None


def ignored_label(loss: Any) -> int | None:
    """The label that does not count: of a cross-entropy, and of any loss that has an attribute ``ignore_index``."""
    options = _cross_entropy(loss)
    ignored = getattr(loss, "ignore_index", None) if options is None else options.get("ignore_index", -100)
    if ignored is not None and (isinstance(ignored, bool) or not isinstance(ignored, (int, np.integer))):
        raise TypeError(f"Trainer: the loss's ignore_index must be a whole number, got {ignored!r}")
    return None if ignored is None else int(ignored)


def counted(loss: Any, labels: Array) -> Array | None:
    """True where a label counts; None where all do."""
    ignored = ignored_label(loss)
    if ignored is None or labels.dtype.kind not in "iu":
        return None
    mask: Array = labels != ignored
    return None if mask.all() else mask


def weight_of(loss: Any, labels: Array) -> float:
    """What the mean over a batch is a mean of: labels that count, or their class weights; else of rows."""
    options, mask = _cross_entropy(loss), counted(loss, labels)
    if _summed(options) or ignored_label(loss) is None or labels.dtype.kind not in "iu":
        return len(labels)
    own = labels if mask is None else labels[mask]
    weight = None if options is None else options.get("weight")
    if weight is None:
        return own.size
    return float(_class_weights(weight)[own].sum())


def nothing_counts(loss: Any, labels: Array) -> bool:
    """Whether the mean over a batch is one of nothing: no label of some that are there counts, or has a weight."""
    options, mask = _cross_entropy(loss), counted(loss, labels)
    own = labels if mask is None else labels[mask]
    if labels.size == 0 or _summed(options):
        return False
    weight = None if options is None else options.get("weight")
    if weight is None or own.size == 0 or own.dtype.kind not in "iu":
        return own.size == 0
    weights = _class_weights(weight)
    # Labels of no class are the loss's to tell.
    return bool(own.min() >= 0 and own.max() < weights.size and not weights[own].any())


def _summed(options: dict[str, Any] | None) -> bool:
    return options is not None and options.get("reduction", "mean") != "mean"


def _class_weights(weight: Any) -> Array:
    """As float64, on the host: those of a device are fetched once, and again where they change."""
    global _fetched
    if not isinstance(weight, Tensor):
        return np.asarray(weight, np.float64)
    before = _fetched
    if before is None or before[0] is not weight or before[1] != weight._version:
        before = _fetched = (weight, weight._version, np.asarray(weight.detach().to("cpu").numpy(), np.float64))
    return before[2]


_fetched: tuple[Tensor, int, Array] | None = None  # the last weights


def on_host(y: Any) -> Array | None:
    """Labels as an array, where that takes no waiting for a device."""
    if isinstance(y, Tensor):
        return y.numpy() if y.device == "cpu" else None
    return np.asarray(y)
