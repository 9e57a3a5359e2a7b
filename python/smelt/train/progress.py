"""The progress bar: on standard error, and only where that is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Loss, learning rate and time left."""

    def __init__(self, epochs: int, steps_per_epoch: int):
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self._bar: Any = None
        self._epoch = 0

    def __enter__(self) -> Progress:
        if sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.epochs * self.steps_per_epoch, unit="step", leave=False, mininterval=0.2)
        return self

    def begin(self, epoch: int, position: int) -> None:
        """An epoch starts, or goes on at a position."""
        self._epoch = epoch + 1
        if self._bar is not None:
            self._bar.n = epoch * self.steps_per_epoch + position
            self._bar.set_description(f"epoch {self._epoch}/{self.epochs}", refresh=False)

    def step(self, loss: float, lr: float) -> None:
        """A step was taken."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}, lr {lr:.2e}", refresh=False)
            self._bar.update()

    def leave_out(self) -> None:
        """A batch was left out."""
        if self._bar is not None:
            self._bar.update()

    def end_epoch(self) -> None:
        """An epoch is complete: other text may be printed now."""
        if self._bar is not None:
            self._bar.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
