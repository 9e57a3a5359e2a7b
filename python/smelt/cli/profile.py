"""The part of ``smelt train --profile``: some steps of the run under a profile."""

from __future__ import annotations

from typing import Any, TextIO

from .. import bench
from ..profiler import Profile
from ..train import Callback, RunFolder, Trainer

_SKIP, _STEPS = 3, 20  # the first steps still allocate


class ProfileSteps(Callback):
    """Profiles 20 steps after the third, or as many as there are."""

    passive = True

    def __init__(self) -> None:
        self.profile = Profile()
        self.seen = 0
        self._running = False

    def on_step_end(self, trainer: Trainer, step: int, loss: float) -> None:
        if self._running:
            self.seen += 1
            if self.seen == _STEPS:
                self.end()
        elif self.seen == 0 and step >= _SKIP:
            self.profile.__enter__()
            self._running = True

    def on_fit_end(self, trainer: Trainer) -> None:
        self.end()

    def end(self) -> None:
        """Ends the profile, also after an error."""
        if self._running:
            self._running = False
            self.profile.__exit__(None, None, None)

    def write(self, folder: RunFolder, stream: TextIO) -> list[dict[str, Any]]:
        """``profile.txt`` and ``trace.json`` in the run folder, and the table to whoever looks."""
        ceiling = bench.limits(64)
        table = f"profile of {self.seen} steps\n{self.profile.table(ceiling)}\n"
        (folder.path / "profile.txt").write_text(table)
        self.profile.save(folder.path / "trace.json")
        print(f"\n{table}", file=stream)
        return self.profile.rows(ceiling)
