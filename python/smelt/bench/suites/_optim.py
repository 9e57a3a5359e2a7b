"""Optimizer updates over a flat buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import _core, functions
from ..shapes import OPTIM
from ._case import UNIT, Case, Contender, Suite, forced, labels, numbers


def _shapes(shapes: Sequence[str], random: int, seed: int) -> list[int]:
    return [numbers(text, 1, "N")[0] for text in shapes] or list(OPTIM)


def _case(n: int, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    """AdamW over n parameters: reads parameter, gradient and two averages, writes three of them."""
    from ... import nn, optim

    p0, g0 = rng.normal(size=n).astype(dtype), rng.normal(size=n).astype(dtype)
    case = Case(f"adamw {n}", dtype, 12.0 * n, 7.0 * n * _core.dtypes[dtype].itemsize, "update_gbs")
    lr, decay = 1e-3, 1e-2
    wide_p, wide_g = p0.astype(np.float64), g0.astype(np.float64)
    wanted = wide_p * (1 - lr * decay) - lr * wide_g / (np.abs(wide_g) + 1e-8)
    # The decay and the step are some five roundings each; the first step's two averages cancel to the gradient's sign.
    case.expected = [(wanted, 16 * UNIT[dtype] * (np.abs(wide_p) + lr))]
    for name, impl in labels(impls):
        parameter = nn.Parameter(_core.to_device(_core.from_numpy(p0, True), device))
        optimizer = optim.AdamW([parameter], lr=lr, weight_decay=decay)
        functions.sum(parameter * _core.to_device(_core.from_numpy(g0, True), device)).backward()
        step = forced(impl, optimizer.step) if impl else optimizer.step
        case.contenders[name] = _first_step(step, parameter)
    if "torch" in modules:
        torch = modules["torch"]
        twin = torch.nn.Parameter(torch.from_numpy(p0.copy()).to(device))
        twin.grad = torch.from_numpy(g0.copy()).to(device)
        rival = torch.optim.AdamW([twin], lr=lr, weight_decay=decay, fused=True)
        seen: list[Any] = []

        def torch_step() -> None:
            rival.step()
            if not seen:
                seen.append(twin.detach().double().cpu().numpy().copy())

        case.contenders["torch"] = Contender(torch_step, lambda: seen)
    return case


def _first_step(step: Callable[[], Any], parameter: Any) -> Contender:
    """An optimizer's step again and again with one gradient; its result is the parameter after the first."""
    gradient = parameter.grad
    first: list[Any] = []

    def run() -> None:
        parameter.grad = gradient
        step()
        if not first:
            first.append(parameter.detach().numpy().astype("float64"))

    return Contender(run, lambda: first)


SUITE = Suite("AdamW over a flat buffer", "N", ("adam",), ("float32", "float64"), _shapes, _case)
