"""Arguments, exit codes, and nothing else: each command has a file of its own."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .. import __version__

__all__ = ["build_parser", "main"]


class UsageError(Exception):
    """A mistake in how the command was called: one line, exit code 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(2)


def _whole(low: int, high: float, words: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # Python converts no more than some thousand digits; no bound here has more than 20.
        value = int(text) if re.fullmatch(r"[+-]?[0-9]{1,30}", text) else low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number {words}, got '{text[:40]}'")
        return value

    return parse


_positive = _whole(1, 2**63 - 1, "of at least 1")
_seed = _whole(0, 2**64 - 1, "from 0 to 2^64 - 1")
_threads = _whole(1, 256, "from 1 to 256")


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", text):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda or cuda:<index>, got '{text}'")
    return text


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _dtype(text: str) -> str:
    return {"fp32": "float32", "fp64": "float64", "bf16": "bfloat16", "fp16": "float16"}.get(text, text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got '{text}'")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a number in [0, 1), got '{text}'")
    return value


# Of the suites, which are imported when they run; a test compares.
_FORMS = """
forms of --shape:
  gemm       MxNxK
  conv       NxHxWxC-KxRxS[-sSTRIDE][-gGROUPS]
  attention  BxHxTxD[-causal][-kvHEADS]
  optim      N
  norm       ROWSxD, NxHxWxC, OP, OP:SHAPE, large or OP:large
  memory     OP or OP:SHAPE[+SHAPE][/NUMBERS], as max_pool2d:8x28x28x32/2,2,0
  step       mlp, cnn, block, resnet18, resnet50, gpt or gpt2"""


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], Any], text: str, example: str) -> Any:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on standard output")
    return parser


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands.

    Returns:
        The parser; its namespace names the command's function.

    Example:
        >>> from smelt.cli.main import build_parser
        >>> build_parser().parse_args(["train", "digits", "--epochs", "3"]).epochs
        3
    """
    from . import bench, evaluate, info, predict, train

    parser = _Parser(
        prog="smelt",
        description="Trains, evaluates and uses AI models.",
        epilog="example:\n  smelt train digits",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"smelt {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    _add(commands, "info", info.run, "show version, CPU, instruction sets and devices", "smelt info --json")

    example = "smelt train mnist --model cnn --epochs 5"
    _train_options(_add(commands, "train", train.run, "train a model and write a run folder", example))

    example = "smelt evaluate runs/digits-cnn-20260101-120000"
    p = _add(commands, "evaluate", evaluate.run, "measure a trained model on its test set", example)
    p.add_argument("path", metavar="RUN", help="run folder, model file or checkpoint")
    p.add_argument(
        "--data",
        metavar="FOLDER|PATH|DATASET",
        help="folder with the datasets, an .npz file with arrays x and y, or a dataset's name",
    )
    p.add_argument("--threads", type=_threads, help="threads of the kernels")

    example = "smelt predict runs/digits-cnn-20260101-120000 images.npy --proba"
    p = _add(commands, "predict", predict.run, "predict with a trained model", example)
    p.add_argument("path", metavar="RUN", help="run folder or model file")
    p.add_argument("input", metavar="INPUT", help=".npy, .npz, .idx (.gz), .png or .csv")
    p.add_argument("--proba", action="store_true", help="probabilities of all classes instead of labels")
    p.add_argument("--out", metavar="FILE", help="write a CSV file, in a folder that exists, instead of printing")
    p.add_argument("--threads", type=_threads, help="threads of the kernels")

    example = "smelt bench gemm --shape 512x512x512 --against numpy"
    p = _add(commands, "bench", bench.run, "time kernels and steps against peers and limits", example)
    p.epilog += "\n" + _FORMS
    _bench_options(p)
    return parser


def _bench_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("suite", metavar="SUITE", nargs="?", help="gemm, conv, attention, optim, norm, memory or step")
    p.add_argument("--list", action="store_true", help="show suites, cases and candidates, and measure nothing")
    p.add_argument("--shape", action="append", default=[], help="in the suite's form, below; may be given again")
    p.add_argument(
        "--random",
        type=_positive,
        default=0,
        metavar="COUNT",
        help="draw shapes of gemm, conv or attention from --seed",
    )
    p.add_argument("--seed", type=_seed, default=0, help="of shapes and data (default: 0)")
    p.add_argument("--dtype", type=_dtype, default="float32", help="number format (default: float32)")
    p.add_argument(
        "--impl",
        type=_names,
        default=[],
        metavar="A,B",
        help="candidates to race; the first is compared with the others",
    )
    p.add_argument("--against", type=_names, default=[], metavar="A,B", help="peers: numpy, torch, jax")
    p.add_argument(
        "--rounds",
        type=_whole(5, 10**6, "of at least 5"),
        default=31,
        help="measurements of each, at least 5 (default: 31)",
    )
    p.add_argument(
        "--device", type=_device, default="cpu", help="where smelt and PyTorch work: auto, cpu or cuda (default: cpu)"
    )
    p.add_argument("--threads", type=_threads, help="threads of the kernels (default: all cores that may be used)")
    p.add_argument("--csv", metavar="FILE", help="also write the rows as CSV")
    p.add_argument("--roofline", metavar="FILE", help="draw operations per byte under the limits, as PNG")
    p.add_argument(
        "--compare", metavar="FILE", help="an earlier --json result; exit with 1 after a regression beyond noise"
    )
    p.add_argument("--quiet", action="store_true", help="do not name the cases while they run")


def _train_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "dataset",
        metavar="DATASET|PATH",
        help="digits (in the package), mnist, fashion-mnist, kmnist, or an .npz file with arrays x and y",
    )
    p.add_argument("--model", choices=("mlp", "cnn"), default="cnn", help="the network (default: cnn)")
    p.add_argument("--epochs", type=_positive, help="how often every row is seen (default: 30 for digits, else 5)")
    p.add_argument("--batch-size", type=_positive, help="rows of a step (default: 64 for digits, else 128)")
    p.add_argument(
        "--lr", type=_rate, default=2e-3, help="largest learning rate of the one-cycle schedule (default: 0.002)"
    )
    p.add_argument("--validation", type=_share, default=0.1, help="share of the training rows held out (default: 0.1)")
    p.add_argument("--device", type=_device, default="auto", help="auto, cpu or cuda (default: auto)")
    p.add_argument(
        "--precision",
        choices=("float32", "fp32", "bf16", "bfloat16"),
        default="float32",
        help="bf16: matrix products and convolutions in bfloat16, weights in float32 (default: float32)",
    )
    p.add_argument("--seed", type=_seed, default=0, help="of weights, order and dropout (default: 0)")
    p.add_argument("--threads", type=_threads, help="threads of the kernels (default: all cores that may be used)")
    p.add_argument(
        "--data", metavar="FOLDER", help="folder with the datasets (default: SMELT_DATA, else ~/.cache/smelt)"
    )
    p.add_argument("--download", action="store_true", help="fetch the dataset's files when they are not there")
    p.add_argument("--out", metavar="FOLDER", help="run folder (default: runs/<dataset>-<model>-<time>)")
    p.add_argument("--resume", action="store_true", help="go on with the run in --out, or with the newest one")
    p.add_argument(
        "--checkpoint-every", type=_positive, metavar="STEPS", help="steps between checkpoints (default: an epoch)"
    )
    p.add_argument("--profile", action="store_true", help="profile 20 steps: a table, profile.txt and trace.json")
    p.add_argument("--min-accuracy", type=_share, metavar="SHARE", help="exit with 1 when the test accuracy is below")
    p.add_argument("--quiet", action="store_true", help="no table and no progress bar")


def _check_variables() -> None:
    """A variable with a wrong value is a mistake of the caller; it shows when the library reads it first."""
    from .. import _core

    try:
        _core.max_isa()
        _core.num_threads()
        device = os.environ.get("SMELT_DEVICE")
        if device:
            _device(device)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"SMELT_DEVICE: {error}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _sentence(error: Exception) -> str:
    """The message; that of the system's errors without their number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        0 for success, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C.

    Example:
        >>> from smelt.cli import main
        >>> main(["predict", "no/such/folder", "digits.npy"])
        2
    """
    parser = build_parser()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser.parse_args(arguments)
        if args.command is None:
            parser.error("a command is needed: info, train, evaluate, predict or bench; smelt --help says more")
        args.argv = arguments
        _check_variables()
        if getattr(args, "threads", None):
            from .. import set_num_threads

            set_num_threads(args.threads)
        result, code = args.run(args)
        if args.json:
            from ..serialization import json_text

            sys.stdout.write(json_text(result) + "\n")
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except UsageError as error:
        sys.stderr.write(f"smelt {args.command}: {error}\n")
        return 2
    except KeyboardInterrupt as error:
        sys.stderr.write(f"\nsmelt: {error or 'interrupted'}\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's exit complains again
        return 1
    except (
        AssertionError,
        OSError,
        ValueError,
        TypeError,
        IndexError,
        RuntimeError,
        MemoryError,
        ImportError,
    ) as error:
        sys.stderr.write(f"smelt {args.command}: {_sentence(error).removeprefix(f'{args.command}: ')}\n")
        return 1
    return int(code)
