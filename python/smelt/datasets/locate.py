"""Where datasets lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["data_root"]


def data_root(root: Any = None) -> Path:
    """The folder that holds one folder for each dataset.

    Args:
        root: the folder itself; None takes the variable SMELT_DATA, else ``~/.cache/smelt``.

    Returns:
        The path, which need not exist.

    Example:
        >>> datasets.data_root("/tmp/sets").name
        'sets'
    """
    if root is not None:
        return Path(root)
    return Path(os.environ.get("SMELT_DATA") or Path.home() / ".cache" / "smelt")
