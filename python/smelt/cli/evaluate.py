"""smelt evaluate"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import load
from ..train import Trainer
from . import report, sources
from .main import UsageError


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Metrics of a trained model: ``smelt evaluate RUN``.

    Args:
        args: the parsed command line.

    Returns:
        What ``--json`` prints, and the exit code.
    """
    path = sources.find_model(Path(args.path))
    config = path / "config.json"
    if args.data is None and not config.is_file():
        known = ", ".join(sources.NAMES)
        raise UsageError(
            f"{path} has no config.json that names its dataset, as smelt train writes it; "
            f"name one with --data: {known}, or an .npz file"
        )
    if args.data is not None and args.data.endswith(".npz"):
        test = sources.read_npz(Path(args.data))
        name = Path(args.data).stem
    elif config.is_file() and args.data not in sources.NAMES:
        options = sources.read_options(config)
        dataset = options["dataset"]
        root = options.get("data") if sources.needs_folder(dataset) else None
        source = sources.open_source(dataset, args.data or root)
        test, name = source.test, source.name
    else:
        source = sources.open_source(args.data, None)
        test, name = source.test, source.name
    model = load(path)
    preprocess: Any = model.__dict__["preprocess"]
    trainer = Trainer(model.requires_grad_(), preprocess=preprocess, device="cpu")
    measured = report.measure(trainer, test)
    if not args.json:
        print(report.last_line(measured))
    return {"run": str(path), "dataset": name, "test": measured}, 0
