"""Losses as functions; ``smelt.nn`` has classes of the same that remember their options.

Shapes must agree exactly: predictions (n, 1) against targets (n,) are an error, never a silent broadcast.
"""

from __future__ import annotations

from typing import Any

from . import _core
from ._core import Tensor
from .functions._types import as_count, as_number

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "get",
    "huber_loss",
    "l1_loss",
    "mse_loss",
]


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-likelihood of the labels under softmax(logits).

    Args:
        logits: floating tensor (..., classes) with at least 2 axes.
        labels: integer tensor (...) with values in [0, classes), or ``ignore_index``.
        weight: weight of each class (classes,); the mean divides by the sum of the labels' weights.
        label_smoothing: share in [0, 1) that is spread evenly over all classes (Szegedy et al., 2016).
        ignore_index: rows with this label count nothing and take no gradient.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        Tensor (), or of the shape of ``labels`` for ``"none"``. The mean over no counted row is NaN.

    Raises:
        ValueError: shapes disagree.
        IndexError: a label is out of range; the message has its value and position.

    Example:
        >>> losses.cross_entropy(smelt.zeros(2, 4), smelt.tensor([0, 3]))
        tensor(1.3863)
    """
    return _core.cross_entropy(
        logits, labels, weight, as_number("cross_entropy: label_smoothing", label_smoothing),
        as_count("cross_entropy: ignore_index", ignore_index), reduction,
    )  # fmt: skip


def _check_targets(name: str, predictions: Any, targets: Any) -> None:
    """The two commonest mistakes, with their remedies; the kernel's own checks find the others."""
    if not isinstance(predictions, Tensor) or not isinstance(targets, Tensor):
        return
    if predictions.shape == (*targets.shape, 1):
        raise ValueError(
            f"{name}: input and target must have one shape, got {predictions.shape} and {targets.shape}; "
            f"use y[{':, ' * targets.ndim}None]"
        )
    if predictions.dtype.is_floating and not targets.dtype.is_floating:
        raise TypeError(
            f"{name}: targets must be {predictions.dtype} as the predictions, got {targets.dtype}; "
            f'use y.astype("{predictions.dtype}")'
        )


def binary_cross_entropy_with_logits(
    logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The negative log-likelihood of targets in [0, 1] under sigmoid(logits), without overflow.

    Args:
        logits: floating tensor of any shape.
        targets: tensor of the same shape and dtype.
        pos_weight: weight of the positive term, a scalar or one for each of the last axis.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        Tensor (), or of the shape of ``logits`` for ``"none"``.

    Raises:
        ValueError: shapes disagree.

    Example:
        >>> losses.binary_cross_entropy_with_logits(smelt.zeros(2), smelt.tensor([0.0, 1.0]))
        tensor(0.6931)
    """
    _check_targets("binary_cross_entropy_with_logits", logits, targets)
    return _core.binary_cross_entropy_with_logits(logits, targets, pos_weight, 0.0, reduction)


def mse_loss(predictions: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """The squared difference.

    Args:
        predictions: floating tensor of any shape.
        targets: tensor of the same shape and dtype.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        Tensor (), or of the shape of ``predictions`` for ``"none"``.

    Raises:
        ValueError: shapes disagree.

    Example:
        >>> losses.mse_loss(smelt.tensor([1.0, 2.0]), smelt.tensor([1.0, 4.0]))
        tensor(2.)
    """
    _check_targets("mse_loss", predictions, targets)
    return _core.mse_loss(predictions, targets, None, 0.0, reduction)


def l1_loss(predictions: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """The absolute difference; its gradient is 0 where the two are equal.

    Args:
        predictions: floating tensor of any shape.
        targets: tensor of the same shape and dtype.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        Tensor (), or of the shape of ``predictions`` for ``"none"``.

    Raises:
        ValueError: shapes disagree.

    Example:
        >>> losses.l1_loss(smelt.tensor([1.0, 2.0]), smelt.tensor([1.0, 4.0]))
        tensor(1.)
    """
    _check_targets("l1_loss", predictions, targets)
    return _core.l1_loss(predictions, targets, None, 0.0, reduction)


def huber_loss(predictions: Tensor, targets: Tensor, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Half the squared difference up to ``delta``, linear beyond (Huber, 1964).

    Args:
        predictions: floating tensor of any shape.
        targets: tensor of the same shape and dtype.
        delta: where the loss turns linear, above 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        Tensor (), or of the shape of ``predictions`` for ``"none"``.

    Raises:
        ValueError: shapes disagree, or delta is not above 0.

    Example:
        >>> losses.huber_loss(smelt.tensor([0.0, 0.0]), smelt.tensor([0.5, 3.0]))
        tensor(1.3125)
    """
    _check_targets("huber_loss", predictions, targets)
    return _core.huber_loss(predictions, targets, None, delta, reduction)


_BY_NAME = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
    "mse": mse_loss,
    "l1": l1_loss,
    "huber": huber_loss,
}


def get(loss: Any) -> Any:
    """A loss by name; anything that can be called is returned as it is.

    Args:
        loss: ``"cross_entropy"``, ``"binary_cross_entropy_with_logits"``, ``"mse"``, ``"l1"``, ``"huber"`` (or the
            name of the function, such as ``"mse_loss"``), or a function of predictions and targets.

    Returns:
        A function of predictions and targets.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> losses.get("mse") is losses.mse_loss
        True
    """
    if callable(loss):
        return loss
    by_name = {**_BY_NAME, **{function.__name__: function for function in _BY_NAME.values()}}
    if not isinstance(loss, str) or loss not in by_name:
        raise ValueError(f"loss: must be one of {', '.join(_BY_NAME)} or a function, got {loss!r}")
    return by_name[loss]
