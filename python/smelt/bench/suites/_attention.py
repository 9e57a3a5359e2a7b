"""Attention, forward and all gradients."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import _core, functions
from ..shapes import ATTENTION, Attention, random_attention
from ._case import UNIT, Case, Contender, Suite, at_best, ours, rounded

_FORM = "BxHxTxD[-causal][-kvHEADS]"


def _parsed(text: str) -> Attention:
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)x(\d+)(-causal)?(?:-kv(\d+))?", text.lower())
    batch, heads, t, d = (int(v) for v in found.groups()[:4]) if found else (0, 0, 0, 0)
    if not found or min(batch, heads, t, d) < 1:
        raise ValueError(f"--shape must be {_FORM} with positive integers, got {text!r}")
    shape = Attention("given", batch, heads, t, d, bool(found[5]), int(found[6] or heads))
    if shape.kv_heads < 1 or shape.heads % shape.kv_heads:
        raise ValueError(f"--shape must have a number of kv heads that divides the heads, got {text!r}")
    return shape


def _shapes(shapes: Sequence[str], random: int, seed: int) -> list[Attention]:
    return [_parsed(text) for text in shapes] or (random_attention(random, seed) if random else list(ATTENTION))


def _expected(s: Attention, dtype: str, q: Any, k: Any, v: Any, dy: Any) -> list[tuple[Any, Any]]:
    """Result and gradients of the last sequence's first key head and its queries, from the definition, and error bounds."""
    group = s.heads // s.kv_heads
    keys, values = k[-1, :, 0], v[-1, :, 0]
    wanted = [np.zeros((group, s.t, s.d)), np.zeros((group, s.t, s.d)), np.zeros((s.t, s.d)), np.zeros((s.t, s.d))]
    sizes = [np.zeros_like(w) for w in wanted]
    scale = s.d**-0.5
    for h in range(group):
        queries, outer = q[-1, :, h], dy[-1, :, h]
        scores = queries @ keys.T * scale
        if s.causal:
            scores[np.triu_indices(s.t, 1)] = -np.inf
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        dp, dp_size = outer @ values.T, np.abs(outer) @ np.abs(values).T
        ds = p * (dp - (p * dp).sum(1, keepdims=True)) * scale
        ds_size = p * (dp_size + (p * dp_size).sum(1, keepdims=True)) * scale
        wanted[0][h], sizes[0][h] = p @ values, p @ np.abs(values)
        wanted[1][h], sizes[1][h] = ds @ keys, ds_size @ np.abs(keys)
        wanted[2] += ds.T @ queries
        sizes[2] += ds_size.T @ np.abs(queries)
        wanted[3] += p.T @ outer
        sizes[3] += p.T @ np.abs(outer)
    # A score is a sum of D products whose size is some 10 at most; p and ds are then summed over T. Halves round p, ds and y.
    units = (10 * (s.d + 8) + 2 * s.t * group) * UNIT["float32"] + (4 * UNIT[dtype] if dtype == "bfloat16" else 0)
    return [(w, units * size + 2 * UNIT[dtype] * np.abs(w)) for w, size in zip(wanted, sizes, strict=True)]


def _pick(s: Attention, arrays: Sequence[Any]) -> list[Any]:
    """The part that `_expected` computes, of arrays (B, T, H, D)."""
    group = s.heads // s.kv_heads
    y, dq, dk, dv = (np.asarray(a)[-1] for a in arrays)
    return [y[:, :group].swapaxes(0, 1), dq[:, :group].swapaxes(0, 1), dk[:, 0], dv[:, 0]]


def _case(s: Attention, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    shapes = [(s.batch, s.t, h, s.d) for h in (s.heads, s.kv_heads, s.kv_heads, s.heads)]
    (q, exact_q), (k, exact_k), (v, exact_v), (dy, exact_dy) = (
        rounded(rng.standard_normal(shape, np.float32), dtype, device) for shape in shapes
    )
    size = _core.dtypes[dtype].itemsize
    elements = sum(int(np.prod(shape)) for shape in shapes)
    case = Case(f"attention {s}", dtype, s.flops, 3.0 * size * elements)
    case.expected = _expected(s, dtype, exact_q, exact_k, exact_v, exact_dy)

    def work() -> list[Any]:
        a, b, c = (t.detach().requires_grad_() for t in (q, k, v))
        y = functions.attention(a, b, c, causal=s.causal)
        y.backward(dy)
        return [y.detach(), a.grad, b.grad, c.grad]

    for name, contender in ours(impls, work):
        case.contenders[name] = Contender(contender.run, lambda c=contender: _pick(s, c.result()))  # type: ignore[misc]
    if "torch" in modules:
        torch = modules["torch"]
        leaves = [
            torch.from_numpy(e).to(device, getattr(torch, dtype)).transpose(1, 2).contiguous().requires_grad_()
            for e in (exact_q, exact_k, exact_v)
        ]
        outer = torch.from_numpy(exact_dy).to(device, getattr(torch, dtype)).transpose(1, 2).contiguous()
        options = {"is_causal": s.causal, **({"enable_gqa": True} if s.kv_heads != s.heads else {})}

        def rival() -> Any:
            y = torch.nn.functional.scaled_dot_product_attention(*leaves, **options)
            return [y.detach(), *torch.autograd.grad(y, leaves, outer)]

        case.contenders["torch"] = Contender(
            at_best(torch, rival), lambda: _pick(s, [t.transpose(1, 2).double().cpu().numpy() for t in rival()])
        )
    return case


SUITE = Suite(
    "attention, forward and gradients",
    _FORM,
    ("attention",),
    ("float32", "float64", "bfloat16"),
    _shapes,
    _case,
    random=True,
)
