"""Layer norm and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import _core, functions
from ..shapes import NORM
from ._case import UNIT, Case, Contender, Suite, at_best, numbers, ours, rounded


@dataclass(frozen=True)
class _Norm:
    op: str
    rows: int
    d: int

    def __str__(self) -> str:
        return f"{self.op} {self.rows}x{self.d}"


def _shapes(shapes: Sequence[str], random: int, seed: int) -> list[_Norm]:
    sizes = [tuple(numbers(text, 2, "ROWSxD")) for text in shapes] or NORM
    return [_Norm(op, rows, d) for op in ("layer_norm", "softmax") for rows, d in sizes]


def _case(shape: _Norm, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    op, rows, d = shape.op, shape.rows, shape.d
    x, exact = rounded(rng.normal(size=(rows, d)), dtype, device)
    case = Case(str(shape), dtype, 8.0 * rows * d, 2.0 * rows * d * _core.dtypes[dtype].itemsize)
    one, zero = functions.ones(d, device=device).astype(dtype), functions.zeros(d, device=device).astype(dtype)
    if op == "layer_norm":
        centred = exact - exact.mean(1, keepdims=True)
        wanted = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
        case.contenders.update(ours(impls, lambda: [functions.layer_norm(x, one, zero)]))
    else:
        power = np.exp(exact - exact.max(1, keepdims=True))
        wanted = power / power.sum(1, keepdims=True)
        case.contenders.update(ours(impls, lambda: [functions.softmax(x)]))
    # Sums in some order of blocks; a layer norm's error is relative to the row's deviation, which the result has as 1.
    case.expected = [(wanted, 8 * UNIT[dtype] * math.log2(d + 2) * (np.abs(wanted) + (op == "layer_norm")))]
    if "numpy" in modules and dtype in ("float32", "float64"):
        case.contenders["numpy"] = _numpy_norm(op, exact.astype(dtype))
    if "torch" in modules:
        torch = modules["torch"]
        u = torch.from_numpy(exact).to(device, getattr(torch, dtype))
        weight, bias = torch.ones(d, dtype=u.dtype, device=device), torch.zeros(d, dtype=u.dtype, device=device)
        f = torch.nn.functional

        def rival() -> Any:
            return f.layer_norm(u, (d,), weight, bias) if op == "layer_norm" else f.softmax(u, -1)

        case.contenders["torch"] = Contender(at_best(torch, rival), lambda: [rival().double().cpu().numpy()])
    if "jax" in modules and dtype != "float64":
        jax = modules["jax"]
        p = jax.numpy.asarray(exact, dtype)

        def norm(t: Any) -> Any:
            if op == "softmax":
                return jax.nn.softmax(t)
            middle = t - t.mean(1, keepdims=True)
            return middle * jax.lax.rsqrt((middle**2).mean(1, keepdims=True) + 1e-5)

        compiled = jax.jit(norm)
        case.contenders["jax"] = Contender(
            lambda: compiled(p).block_until_ready(), lambda: [np.asarray(compiled(p), np.float64)]
        )
    return case


def _numpy_norm(op: str, x: Any) -> Contender:
    def run() -> Any:
        if op == "softmax":
            power = np.exp(x - x.max(1, keepdims=True))
            return power / power.sum(1, keepdims=True)
        middle = x - x.mean(1, keepdims=True)
        return middle / np.sqrt((middle**2).mean(1, keepdims=True) + x.dtype.type(1e-5))

    return Contender(run, lambda: [run()])


SUITE = Suite("layer norm and softmax", "ROWSxD", ("layer_norm", "softmax"), ("float32", "float64"), _shapes, _case)
