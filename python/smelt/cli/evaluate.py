"""smelt evaluate"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import load
from ..train import Trainer
from . import report, sources
from .main import UsageError


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Metrics of a finished run: ``smelt evaluate RUN``.

    Args:
        args: the parsed command line.

    Returns:
        What ``--json`` prints, and the exit code.
    """
    folder = Path(args.path)
    config = folder / "config.json"
    if not (folder / "model.safetensors").exists() or not config.exists():
        raise UsageError(f"{folder} must be a run folder with model.safetensors and config.json")
    model = load(folder)
    if args.data is not None and args.data.endswith(".npz"):
        test = sources.read_npz(Path(args.data))
        name = Path(args.data).stem
    else:
        options = json.loads(config.read_text())["options"]
        source = sources.open_source(options["dataset"], args.data or options["data"])
        test, name = source.test, source.name
    preprocess: Any = model.__dict__["preprocess"]
    trainer = Trainer(model.requires_grad_(), preprocess=preprocess, device="cpu")
    measured = report.measure(trainer, test)
    if not args.json:
        print(report.last_line(measured))
    return {"run": str(folder), "dataset": name, "test": measured}, 0
