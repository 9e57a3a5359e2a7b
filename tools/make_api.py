"""Writes docs/api.md, one line for each public name, from the docstrings of the package.

python tools/make_api.py            # write
python tools/make_api.py --check    # exit 1 when the page is not up to date
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import re
import sys
from pathlib import Path

import smelt

TARGET = Path(__file__).resolve().parent.parent / "docs" / "api.md"
HEADER = """# All public names

Generated from the docstrings by `tools/make_api.py`: do not edit. `help(smelt.softmax)` shows a docstring in full, with
shapes, errors and an example that the tests run.
"""
# Titles of modules whose docstring says more than what is in them.
MODULES = {
    "nn": "Layers: `smelt.nn`",
    "nn.init": "Initial values: `smelt.nn.init`",
    "losses": "Losses: `smelt.losses`",
    "optim": "Optimizers: `smelt.optim`",
    "schedule": "Schedules of the learning rate: `smelt.schedule`",
    "metrics": "Metrics: `smelt.metrics`",
    "data": "Data: `smelt.data`",
    "datasets": "Datasets: `smelt.datasets`",
    "train": "Training: `smelt.train`",
    "kernels": "Kernels: `smelt.kernels`",
    "runtime": "This machine: `smelt.runtime`",
    "cuda": "NVIDIA GPUs: `smelt.cuda`",
    "profiler": "Profiling: `smelt.profiler`",
    "bench": "Measuring: `smelt.bench`",
    "bench.suites": "What is measured: `smelt.bench.suites`",
    "bench.shapes": "Shapes: `smelt.bench.shapes`",
    "bench.models": "Networks: `smelt.bench.models`",
    "bench.report": "Reports: `smelt.bench.report`",
}
METHODS = {
    "nn": (smelt.nn.Module,),
    "optim": (smelt.optim.Optimizer,),
    "data": (smelt.data.Loader,),
    "cuda": (smelt.cuda.Event,),
    "profiler": (smelt.Profile,),
    "bench": (smelt.bench.Race,),
    "train": (smelt.Trainer, smelt.train.History, smelt.train.Callback),
}


def summary(value: object) -> str:
    """The first sentence of a docstring, in one line of a table."""
    value = value.func if isinstance(value, functools.partial) else value  # a method, bound
    paragraph = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    sentence = re.match(r".*?[.:](?= [A-Z]|$)", paragraph)
    text = sentence[0] if sentence else paragraph
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return text.rstrip(":").replace("|", "\\|").replace("<", "\\<")


def call(name: str, value: object) -> str:
    """A name with its arguments, without their types."""
    if not callable(value) or value is smelt.Tensor:
        return name
    try:
        signature = inspect.signature(value)
    except ValueError:  # of a compiled class
        return name
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return name + re.sub(r"\s+", " ", str(signature.replace(parameters=plain, return_annotation=signature.empty)))


def table(title: str, rows: dict[str, object]) -> list[str]:
    lines = [f"## {title}", "", "| name | what it is |", "|---|---|"]
    lines += [f"| `{call(name, value)}` | {summary(value)} |" for name, value in sorted(rows.items(), key=by_name)]
    return [*lines, ""]


def by_name(row: tuple[str, object]) -> tuple[str, str]:
    return row[0].lower(), row[0]


def methods(cls: type) -> dict[str, object]:
    """Methods and properties of a class that have a text of their own."""
    found: dict[str, object] = {}
    owner = "x" if cls is smelt.Tensor else cls.__name__.lower()
    for name, value in vars(cls).items():
        documented = isinstance(value, property) or inspect.isfunction(value)
        if documented and not name.startswith("_") and getattr(value, "__doc__", None):
            found[f"{owner}.{name}"] = functools.partial(value, None) if inspect.isfunction(value) else value
    return found


def page() -> str:
    groups: dict[str, dict[str, object]] = {}
    for name in smelt.__all__:
        value = getattr(smelt, name)
        if name.startswith("__") or inspect.ismodule(value):
            continue
        where = getattr(value, "__module__", "") or ""
        if isinstance(value, smelt.DType):
            title = "Dtypes"
        elif where.startswith("smelt.functions."):
            title = (sys.modules[where].__doc__ or "").split("\n")[0].split(". ")[0].rstrip(".")
        else:
            title = "Tensors, gradients, files, settings"
        groups.setdefault(title, {})[f"smelt.{name}"] = value
    lines = [HEADER]
    dtypes = groups.pop("Dtypes")
    lines += [
        "## Dtypes",
        "",
        ", ".join(f"`{name}`" for name in sorted(dtypes)) + '; names such as `"float32"` do too.',
        "",
    ]
    for title in sorted(groups, key=lambda title: (not title.startswith("Tensors"), title)):
        lines += table(title, groups[title])
    own = {name: value for name, value in methods(smelt.Tensor).items() if not hasattr(smelt, name[2:])}
    lines += table("Methods of tensors that are not functions too", own)
    for path, title in MODULES.items():
        module = importlib.import_module(f"smelt.{path}")
        rows = {f"{path}.{name}": getattr(module, name) for name in module.__all__}
        rows = {name: v for name, v in rows.items() if inspect.isfunction(v) or issubclass(type(v), type)}
        lines += table(title, rows)
        for cls in METHODS.get(path, ()):
            lines += table(f"Methods of `{cls.__name__}`", methods(cls))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args()
    text = page()
    if args.check:
        if not TARGET.exists() or TARGET.read_text() != text:
            sys.stderr.write(f"{TARGET.name} is not up to date: run python tools/make_api.py\n")
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
