"""Training steps of whole networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ._case import Case, Contender, Suite


def _shapes(shapes: Sequence[str], random: int, seed: int) -> list[str]:
    from ..models import MODELS

    for name in shapes:
        if name not in MODELS:
            raise ValueError(f"--shape must be of {', '.join(MODELS)} for step, got {name!r}")
    return list(shapes) or ["mlp", "cnn"]  # the others take long


def _case(name: str, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    """One training step, forward, backward and AdamW, from equal weights; the first losses must agree."""
    from .. import models

    case = Case(f"step {name}", dtype, 0.0, 0.0)
    precision = "bf16" if dtype == "bfloat16" else dtype
    step, model = models.smelt_step(name, precision, device)
    steps = [("smelt", step)]
    if "torch" in modules:
        steps += [(f"torch {label}", rival) for label, rival in models.torch_steps(name, model, precision, device)]
    for label, one in steps:
        case.contenders[label] = _first_loss(one)
    return case


def _first_loss(step: Callable[[], float]) -> Contender:
    """A training step; its result is the loss of the first."""
    losses: list[float] = []

    def run() -> None:
        loss = step()
        if not losses:
            losses.append(loss)

    return Contender(run, lambda: losses)


SUITE = Suite(
    "training steps of whole networks",
    "mlp, cnn, block, resnet18, resnet50, gpt or gpt2",
    (),
    ("float32", "bfloat16"),
    _shapes,
    _case,
)
