"""The folder of a training run: configuration, history, checkpoints, the model, plots and a log."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any

from ..serialization import json_text, write_atomically
from .history import History

__all__ = ["RunFolder"]

_KEPT = 2


class RunFolder:
    """A folder as every run has it.

    Args:
        path: the folder; it is made if needed.
        resume: go on in a folder that has files. Without it such a folder is refused.

    Raises:
        FileExistsError: the folder has files and ``resume`` is False.

    Example:
        >>> import tempfile
        >>> folder = smelt.train.RunFolder(tempfile.mkdtemp())
        >>> folder.latest_checkpoint() is None
        True
    """

    def __init__(self, path: Any, resume: bool = False):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"out: {self.path} must be a folder, it is a file")
        if not resume and self.path.is_dir() and any(self.path.iterdir()):
            raise FileExistsError(f"out: folder {self.path} must be empty, it has files; choose another or pass resume")
        self.path.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def default_path(dataset: str, model: str) -> Path:
        """``runs/<dataset>-<model>-<YYYYMMDD-HHMMSS>``, with a number behind where that is taken.

        Args:
            dataset: name of the dataset.
            model: name of the model.

        Returns:
            A path that does not exist.

        Example:
            >>> str(smelt.train.RunFolder.default_path("digits", "cnn")).startswith("runs/digits-cnn-")
            True
        """
        base = Path("runs") / f"{dataset}-{model}-{time.strftime('%Y%m%d-%H%M%S')}"
        path, number = base, 2
        while path.exists():
            path = base.with_name(f"{base.name}-{number}")
            number += 1
        return path

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file, all at once.

        Args:
            name: the file's name.
            value: JSON values; null is written for numbers that are not finite.

        Example:
            >>> import tempfile
            >>> smelt.train.RunFolder(tempfile.mkdtemp()).write_json("config.json", {"seed": 0})
        """
        write_atomically(self.path / name, (json_text(value, indent=2) + "\n").encode())

    def write_history(self, history: History) -> None:
        """Writes ``history.csv`` and ``history.json``.

        Args:
            history: the rows.

        Example:
            >>> import tempfile
            >>> smelt.train.RunFolder(tempfile.mkdtemp()).write_history(smelt.train.History([{"epoch": 1}]))
        """
        write_atomically(self.path / "history.csv", history.to_csv().encode())
        self.write_json("history.json", history.rows)

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint of a step lies.

        Args:
            step: how many steps were taken.

        Example:
            >>> import tempfile
            >>> smelt.train.RunFolder(tempfile.mkdtemp()).checkpoint_path(469).name
            'step-00000469.safetensors'
        """
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def checkpoints(self) -> list[Path]:
        """The checkpoints that are there, oldest first.

        Example:
            >>> import tempfile
            >>> smelt.train.RunFolder(tempfile.mkdtemp()).checkpoints()
            []
        """
        found = (self.path / "checkpoints").glob("step-*.safetensors")
        return sorted(p for p in found if re.fullmatch(r"step-\d{8,}\.safetensors", p.name))

    def latest_checkpoint(self) -> Path | None:
        """The newest checkpoint, None when there is none.

        Example:
            >>> import tempfile
            >>> smelt.train.RunFolder(tempfile.mkdtemp()).latest_checkpoint() is None
            True
        """
        return next(iter(reversed(self.checkpoints())), None)

    def prune(self) -> None:
        """Deletes all checkpoints but the last two, and what a killed process left half written.

        Example:
            >>> import tempfile
            >>> smelt.train.RunFolder(tempfile.mkdtemp()).prune()
        """
        for old in self.checkpoints()[:-_KEPT]:
            old.unlink(missing_ok=True)
        for folder in (self.path, self.path / "checkpoints"):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def log_handler(self) -> logging.Handler:
        """A handler that appends to ``log.txt``.

        Example:
            >>> import tempfile
            >>> smelt.train.RunFolder(tempfile.mkdtemp()).log_handler().close()
        """
        handler = logging.FileHandler(self.path / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        return handler
