"""Datasets as the commands name them."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .. import datasets
from ..data import ArrayDataset, split
from ..data.preprocess import refuse_not_finite
from ..functions._types import Array
from .main import UsageError

# name -> (reader, largest raw value, default epochs, default batch size)
_IDX = {"mnist": datasets.mnist, "fashion-mnist": datasets.fashion_mnist, "kmnist": datasets.kmnist}
NAMES = ("digits", *_IDX)


class Source:
    """Training and test set, and what is known about them."""

    def __init__(
        self, name: str, train: ArrayDataset, test: ArrayDataset, maximum: float, epochs: int, batch_size: int
    ):
        self.name, self.train, self.test, self.maximum = name, train, test, maximum
        self.epochs, self.batch_size = epochs, batch_size


def needs_folder(name: str) -> bool:
    """Whether a dataset lies in the folder that ``--data`` names."""
    return name != "digits" and Path(name).suffix != ".npz"


def open_source(name: str, root: Any, download: bool = False) -> Source:
    """The dataset of a command line: a fifth of a set without a test part is split off, stratified, with seed 0."""
    path = Path(name)
    if root is not None and not needs_folder(name):
        where = "in the package" if name == "digits" else "a file of its own"
        raise UsageError(f"--data must not name a folder here: {name} is {where}, got '{root}'")
    if name == "digits":
        train, test = split(datasets.digits(), 0.2, stratify=True, seed=0)
        return Source(name, train, test, 16.0, epochs=30, batch_size=64)
    if name in _IDX:
        try:
            train, test = _IDX[name](root, download)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                str(error).replace("pass download=True", "run smelt train with --download")
            ) from None
        return Source(name, train, test, 255.0, epochs=5, batch_size=128)
    if path.suffix == ".npz":
        whole = read_npz(path)
        train, test = split(whole, 0.2, stratify=True, seed=0)
        maximum = float(np.abs(whole.x).max()) or 1.0
        return Source(path.stem, train, test, maximum, epochs=5, batch_size=128)
    known = ", ".join(NAMES)
    raise UsageError(f"dataset must be one of {known}, or an .npz file, got '{name}'")


def find_model(path: Path) -> Path:
    """The run folder or model file of a command line."""
    if not path.exists():
        raise UsageError(f"{path} must be a run folder or a model file, it does not exist")
    if path.is_dir() and not (path / "model.safetensors").exists():
        raise UsageError(f"{path} must be a run folder or a model file, it has no model.safetensors")
    return path


def read_options(path: Path) -> dict[str, Any]:
    """The options that a run's config.json has."""
    try:
        options = json.loads(path.read_text(encoding="utf-8"))["options"]
        if not isinstance(options["dataset"], str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} is damaged: it must be the configuration that smelt train writes") from None
    return dict(options)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by their names; that of an .npy file has the name ""."""
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            return {"": content} if isinstance(content, np.ndarray) else dict(content)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it is no array of numbers (pickled objects are not read)" if "pickle" in str(error) else str(error)
        raise ValueError(f"{path} cannot be read: {reason}") from None


def read_npz(path: Path) -> ArrayDataset:
    """Images x (N, H, W, C) or (N, H, W) and labels y (N,) of an .npz file."""
    if not path.exists():
        raise UsageError(f"file {path} does not exist")
    arrays = read_arrays(path)
    if not {"x", "y"} <= arrays.keys():
        raise UsageError(f"{path} must hold arrays x and y, it has {', '.join(arrays) or 'none'}")
    x, y = arrays["x"], arrays["y"]
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim == 2:
        x = x[:, None, :, None]
    if x.ndim != 4 or y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(f"{path}: x must be (N, H, W, C) and y integers (N,), got {x.shape} and {y.dtype} {y.shape}")
    if len(y) and y.min() < 0:
        raise ValueError(f"{path}: labels must not be negative, got {y.min()}")
    refuse_not_finite(f"{path}: x", x)
    names = [str(i) for i in range(int(y.max(initial=-1)) + 1)]
    return ArrayDataset(x, y.astype(np.int64), names)
