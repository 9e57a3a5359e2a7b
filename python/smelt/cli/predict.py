"""smelt predict"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .. import load, softmax
from ..datasets import read_idx
from ..functions._types import Array
from ..serialization import write_atomically
from ..train.inference import predict
from ..train.steps import check_finite
from .main import UsageError
from .sources import find_model, read_arrays


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Predictions for a file: ``smelt predict RUN INPUT``.

    Args:
        args: the parsed command line.

    Returns:
        What ``--json`` prints, and the exit code.
    """
    out = None if args.out is None else Path(args.out)
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise UsageError(f"--out must be a file in a folder that exists, got {out}")
    model = load(find_model(Path(args.path)))
    preprocess: Any = model.__dict__["preprocess"]
    shape = preprocess.shape if preprocess is not None else None
    inputs = _read(Path(args.input), shape)
    logits = predict(model, inputs, preprocess, "cpu", 256)
    probabilities = softmax(logits).numpy()
    check_finite("predict: outputs", probabilities, np.arange(len(probabilities)), "the result")
    names = model.__dict__["labels"] or [str(i) for i in range(probabilities.shape[-1])]
    best = probabilities.argmax(-1)
    labels = [names[i] for i in best]
    result: dict[str, Any] = {"labels": labels} if out is None else {"out": str(out), "rows": len(labels)}
    if args.proba and out is None:
        result["probabilities"] = probabilities.tolist()
        result["classes"] = names
    text = _table(labels, probabilities, names) if args.proba else "".join(f"{label}\n" for label in labels)
    if out is not None:
        write_atomically(out, (text if args.proba else "label\n" + text).encode())
    elif not args.json:
        sys.stdout.write(text)
    return result, 0


def _table(labels: list[str], probabilities: Array, names: list[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["label", *names])
    for label, row in zip(labels, probabilities):
        writer.writerow([label, *(f"{p:.6f}" for p in row)])
    return out.getvalue()


def _read(path: Path, shape: tuple[int, ...] | None) -> Array:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if suffix in (".npy", ".npz"):
        arrays = read_arrays(path)
        if not arrays:
            raise ValueError(f"predict: {path} must hold an array, it has none")
        return arrays.get("x", next(iter(arrays.values())))
    if suffix == ".csv":
        return _read_csv(path)
    if suffix == ".png":
        return _read_png(path, shape)
    if "idx" in path.name:
        return read_idx(path)
    raise UsageError(f"input must end in .npy, .npz, .idx, .png or .csv, got '{path.name}'")


def _read_csv(path: Path) -> Array:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"predict: {path} cannot be read: {error}") from None
    if rows and any(not _is_number(cell) for cell in rows[0]):
        rows = rows[1:]  # a line of names
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]) or not all(_is_number(cell) for cell in row):
            raise ValueError(
                f"predict: {path} must have {len(rows[0])} numbers in each row, row {number} has {row[:5]} ..."
            )
    if not rows:
        raise ValueError(f"predict: {path} must have at least one row of numbers, it has none")
    with np.errstate(over="ignore"):  # infinity is refused later, by its row
        return np.array(rows, dtype=np.float32)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_png(path: Path, shape: tuple[int, ...] | None) -> Array:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('predict: pictures need Pillow: pip install "smelt[vision]"') from None
    with Image.open(path) as image:
        gray = shape is not None and shape[-1] == 1
        pixels = np.asarray(image.convert("L" if gray else "RGB"))
    return pixels[None, ..., None] if gray else pixels[None]
