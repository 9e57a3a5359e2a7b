"""What happened in each epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from ..serialization import json_text

__all__ = ["History"]


class History:
    """One row for each epoch: epoch, step, seconds, lr, train_loss, train_<metric>, val_loss, val_<metric>.

    Example:
        >>> from smelt.train import History
        >>> h = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
        >>> h["train_loss"]
        [0.5, 0.25]
        >>> h[-1]
        {'epoch': 2, 'train_loss': 0.25}
    """

    def __init__(self, rows: list[dict[str, Any]] | None = None):
        self.rows: list[dict[str, Any]] = list(rows or [])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, column: Any) -> Any:
        """A column by its name, or a row by its number: ``history["val_loss"]``, ``history[-1]``."""
        if not isinstance(column, str):
            return self.rows[column]
        if self.rows and column not in self.columns:
            raise KeyError(f"history: must be one of {', '.join(self.columns)}, got {column!r}")
        return [row.get(column) for row in self.rows]

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def to_csv(self) -> str:
        """The rows as text with a line of names first.

        Example:
            >>> from smelt.train import History
            >>> print(History([{"epoch": 1, "lr": 0.1}]).to_csv(), end="")
            epoch,lr
            1,0.1
        """
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return out.getvalue()

    def to_json(self) -> str:
        """The rows as a JSON list of objects; null stands for numbers that are not finite.

        Example:
            >>> from smelt.train import History
            >>> History([{"epoch": 1}]).to_json()
            '[{"epoch": 1}]'
        """
        return json_text(self.rows)

    def __repr__(self) -> str:
        return f"History({len(self.rows)} epochs: {', '.join(self.columns)})"
