"""Code of one's own at points of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["Callback"]


class Callback:
    """Derive a class, define what is needed, and pass an object of it to ``Trainer.fit(callbacks=[...])``.

    Setting ``trainer.stop = True`` ends the run after the current step. A callback with ``on_step_end`` may change anything
    that a step reads, so steps are then not recorded (see :func:`smelt.capture`), unless ``passive`` says that it does not.

    Attributes:
        passive: True promises that ``on_step_end`` changes nothing that a step reads, but for attributes of modules,
            values of parameters and buffers, and the optimizer's options.

    Example:
        >>> class Print(smelt.train.Callback):
        ...     def on_epoch_end(self, trainer, row):
        ...         print(row["epoch"])
    """

    passive: bool = False

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first step.

        Args:
            trainer: the trainer.
        """

    def on_step_end(self, trainer: Trainer, step: int, loss: float) -> None:
        """After every step.

        Args:
            trainer: the trainer.
            step: how many steps were taken.
            loss: the loss of this one.
        """

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """After every epoch and its validation.

        Args:
            trainer: the trainer.
            row: the epoch's row of the history.
        """

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last step, the best weights being back in the model.

        Args:
            trainer: the trainer.
        """
