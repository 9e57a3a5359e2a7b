"""Losses as modules that remember their options."""

from __future__ import annotations

from .. import losses
from .._core import Tensor
from .module import Module, stated

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "L1Loss", "MSELoss"]


class CrossEntropyLoss(Module):
    """:func:`smelt.losses.cross_entropy` with its options remembered.

    Args:
        weight: weight of each class, or None.
        label_smoothing: share that is spread over all classes.
        ignore_index: label of rows that do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> nn.CrossEntropyLoss()(smelt.zeros(2, 4), smelt.tensor([0, 3]))
        tensor(1.3863)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        reduction: str = "mean",
    ):
        super().__init__()
        self.weight, self.label_smoothing = weight, label_smoothing
        self.ignore_index, self.reduction = ignore_index, reduction

    def extra_repr(self) -> str:
        return stated(self, weight=None, label_smoothing=0.0, ignore_index=-100, reduction="mean")[2:]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return losses.cross_entropy(
            logits, labels, self.weight, self.label_smoothing, self.ignore_index, self.reduction
        )


class BCEWithLogitsLoss(Module):
    """:func:`smelt.losses.binary_cross_entropy_with_logits` with its options remembered.

    Args:
        pos_weight: weight of the positive term, or None.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> nn.BCEWithLogitsLoss()(smelt.zeros(2), smelt.tensor([0.0, 1.0]))
        tensor(0.6931)
    """

    def __init__(self, pos_weight: Tensor | None = None, reduction: str = "mean"):
        super().__init__()
        self.pos_weight, self.reduction = pos_weight, reduction

    def extra_repr(self) -> str:
        return stated(self, pos_weight=None, reduction="mean")[2:]

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return losses.binary_cross_entropy_with_logits(logits, targets, self.pos_weight, self.reduction)


class MSELoss(Module):
    """:func:`smelt.losses.mse_loss` with its options remembered.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> nn.MSELoss()(smelt.tensor([1.0, 2.0]), smelt.tensor([1.0, 4.0]))
        tensor(2.)
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        self.reduction = reduction

    def extra_repr(self) -> str:
        return stated(self, reduction="mean")[2:]

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return losses.mse_loss(predictions, targets, self.reduction)


class L1Loss(Module):
    """:func:`smelt.losses.l1_loss` with its options remembered.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> nn.L1Loss()(smelt.tensor([1.0, 2.0]), smelt.tensor([1.0, 4.0]))
        tensor(1.)
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        self.reduction = reduction

    def extra_repr(self) -> str:
        return stated(self, reduction="mean")[2:]

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return losses.l1_loss(predictions, targets, self.reduction)


class HuberLoss(Module):
    """:func:`smelt.losses.huber_loss` with its options remembered.

    Args:
        delta: where the loss turns linear.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> nn.HuberLoss()(smelt.tensor([0.0, 0.0]), smelt.tensor([0.5, 3.0]))
        tensor(1.3125)
    """

    def __init__(self, delta: float = 1.0, reduction: str = "mean"):
        super().__init__()
        self.delta, self.reduction = delta, reduction

    def extra_repr(self) -> str:
        return stated(self, delta=1.0, reduction="mean")[2:]

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return losses.huber_loss(predictions, targets, self.delta, self.reduction)
