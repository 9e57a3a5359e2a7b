"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import _core, functions
from ..shapes import GEMM, Gemm, random_gemm
from ._case import UNIT, Case, Contender, Suite, at_best, numbers, ours, rounded


def _shapes(shapes: Sequence[str], random: int, seed: int) -> list[Gemm]:
    if shapes:
        return [Gemm("given", m, n, k) for m, n, k in (numbers(text, 3, "MxNxK") for text in shapes)]
    return random_gemm(random, seed) if random else list(GEMM)


def _case(shape: Gemm, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    lead = (shape.batch,) if shape.batch > 1 else ()
    m, n, k, ta, tb = shape.m, shape.n, shape.k, shape.ta, shape.tb
    a, exact_a = rounded(rng.normal(size=(*lead, *((k, m) if ta else (m, k)))), dtype, device)
    b, exact_b = rounded(rng.normal(size=(*lead, *((n, k) if tb else (k, n)))), dtype, device)
    left, right = (np.swapaxes(e, -1, -2) if t else e for e, t in ((exact_a, ta), (exact_b, tb)))
    size = _core.dtypes[dtype].itemsize
    case = Case(f"gemm {shape}", dtype, shape.flops, float(size * shape.batch * (m * k + k * n + m * n)))
    accumulator = UNIT["float64" if dtype == "float64" else "float32"]
    wanted = left @ right
    bound = (k + 8) * accumulator * (np.abs(left) @ np.abs(right)) + 2 * UNIT[dtype] * np.abs(wanted)
    case.expected = [(wanted, bound)]
    case.contenders.update(ours(impls, lambda: [functions.matmul(a, b, ta, tb)]))
    if "numpy" in modules and dtype in ("float32", "float64"):
        x, y = (
            np.swapaxes(e.astype(dtype), -1, -2) if t else e.astype(dtype) for e, t in ((exact_a, ta), (exact_b, tb))
        )
        out = np.empty((*lead, m, n), dtype)
        case.contenders["numpy"] = Contender(lambda: np.matmul(x, y, out=out), lambda: [out])
    if "torch" in modules:
        torch = modules["torch"]
        u, v = (torch.from_numpy(e).to(device, getattr(torch, dtype)) for e in (exact_a, exact_b))
        u, v = (u.mT if ta else u), (v.mT if tb else v)
        case.contenders["torch"] = Contender(
            at_best(torch, lambda: torch.matmul(u, v)), lambda: [torch.matmul(u, v).double().cpu().numpy()]
        )
    if "jax" in modules and dtype != "float64":
        jax = modules["jax"]
        p, q = (jax.numpy.asarray(e, dtype) for e in (left, right))
        multiply = jax.jit(lambda s, t: jax.numpy.matmul(s, t, precision="highest"))
        case.contenders["jax"] = Contender(
            lambda: multiply(p, q).block_until_ready(), lambda: [np.asarray(multiply(p, q), np.float64)]
        )
    return case


SUITE = Suite(
    "matrix products",
    "MxNxK",
    ("gemm",),
    ("float32", "float64", "bfloat16", "float16"),
    _shapes,
    _case,
    random=True,
)
