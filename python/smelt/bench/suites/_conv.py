"""Convolutions, forward and both gradients."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import _core, functions
from ..shapes import CONV, Conv, random_conv
from ._case import UNIT, Case, Contender, Suite, at_best, ours, rounded

_FORM = "NxHxWxC-KxRxS[-sSTRIDE][-gGROUPS]"
_LOOKS = 48  # elements of each result that are computed again in float64


def _parsed(text: str) -> Conv:
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)x(\d+)-(\d+)x(\d+)x(\d+)(?:-s(\d+))?(?:-g(\d+))?", text.lower())
    values = [int(v or 1) for v in found.groups()] if found else [0]
    if min(values) < 1:
        raise ValueError(f"--shape must be {_FORM} with positive integers, got {text!r}")
    shape = Conv("given", *values)
    if shape.c % shape.groups or shape.k % shape.groups:
        raise ValueError(f"--shape must have groups that divide the channels, got {text!r}")
    if min(shape.out) < 1:
        raise ValueError(f"--shape must have a kernel within the padded image, got {text!r}")
    return shape


def _shapes(shapes: Sequence[str], random: int, seed: int) -> list[Conv]:
    return [_parsed(text) for text in shapes] or (random_conv(random, seed) if random else list(CONV))


class _Looks:
    """Some elements of result and gradients, from the definition."""

    def __init__(self, shape: Conv, x: Any, w: Any, dy: Any, rng: Any):
        (ph, pw), st = shape.padding, shape.stride
        self.shape = shape
        self.x = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
        self.w, self.dy = w, dy
        self.at = {
            name: tuple(rng.integers(0, extent, _LOOKS) for extent in array.shape)
            for name, array in (("y", dy), ("dx", x), ("dw", w))
        }
        self.reach = (ph, pw, st)

    def terms(self, name: str, *place: int) -> Any:
        """The products whose sum is one element."""
        shape, (ph, pw, st) = self.shape, self.reach
        cg, kg = shape.c // shape.groups, shape.k // shape.groups
        p, q = shape.out
        if name == "y":
            n, i, j, k = place
            first = k // kg * cg
            return self.x[n, i * st : i * st + shape.r, j * st : j * st + shape.s, first : first + cg] * self.w[k]
        if name == "dw":
            k, r, s, c = place
            rows, columns = slice(r, r + st * (p - 1) + 1, st), slice(s, s + st * (q - 1) + 1, st)
            return self.x[:, rows, columns, k // kg * cg + c] * self.dy[..., k]
        n, h, v, c = place
        first = c // cg * kg
        found = [np.zeros(1)]
        for r in range(shape.r):
            for s in range(shape.s):
                i, j = h + ph - r, v + pw - s
                if i % st == 0 and j % st == 0 and 0 <= i // st < p and 0 <= j // st < q:
                    of_group = slice(first, first + kg)
                    found.append(self.dy[n, i // st, j // st, of_group] * self.w[of_group, r, s, c % cg])
        return np.concatenate(found)

    def expected(self, dtype: str) -> list[tuple[Any, Any]]:
        pairs = []
        for name, at in self.at.items():
            terms = [self.terms(name, *place) for place in zip(*(a.tolist() for a in at), strict=True)]
            wanted, size = np.array([t.sum() for t in terms]), np.array([np.abs(t).sum() for t in terms])
            count = max(t.size for t in terms) + 8
            pairs.append((wanted, count * UNIT["float32"] * size + 2 * UNIT[dtype] * np.abs(wanted)))
        return pairs

    def pick(self, arrays: Sequence[Any]) -> list[Any]:
        return [np.asarray(a)[at] for a, at in zip(arrays, self.at.values(), strict=True)]


def _case(shape: Conv, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    (p, q), cg = shape.out, shape.c // shape.groups
    x, exact_x = rounded(rng.normal(size=(shape.n, shape.h, shape.w, shape.c)), dtype, device)
    w, exact_w = rounded(rng.normal(size=(shape.k, shape.r, shape.s, cg)), dtype, device)
    dy, exact_dy = rounded(rng.normal(size=(shape.n, p, q, shape.k)), dtype, device)
    moved = 3.0 * sum(a.size for a in (exact_x, exact_w, exact_dy)) * _core.dtypes[dtype].itemsize
    case = Case(f"conv {shape}", dtype, 3 * shape.flops, moved)
    looks = _Looks(shape, exact_x, exact_w, exact_dy, rng)
    case.expected = looks.expected(dtype)
    image, filters = x.detach(), w.detach()
    image.requires_grad = filters.requires_grad = True

    def run() -> list[Any]:
        image.grad = filters.grad = None
        y = functions.conv2d(image, filters, None, shape.stride, shape.padding, 1, shape.groups)
        y.backward(dy)
        return [y.detach(), image.grad, filters.grad]

    for name, contender in ours(impls, run):
        case.contenders[name] = Contender(contender.run, lambda c=contender: looks.pick(c.result()))  # type: ignore[misc]
    if "torch" in modules:
        case.contenders["torch"] = _torch(modules["torch"], shape, dtype, device, looks, exact_x, exact_w, exact_dy)
    if "jax" in modules:
        case.contenders["jax"] = _jax(modules["jax"], shape, dtype, looks, exact_x, exact_w, exact_dy)
    return case


def _torch(torch: Any, shape: Conv, dtype: str, device: str, looks: _Looks, *exact: Any) -> Contender:
    kind = getattr(torch, dtype)
    channels_last = torch.channels_last
    u, v, g = (
        torch.from_numpy(a).to(device, kind).permute(0, 3, 1, 2).contiguous(memory_format=channels_last) for a in exact
    )
    u.requires_grad_()
    v.requires_grad_()

    def run() -> Any:
        u.grad = v.grad = None
        y = torch.nn.functional.conv2d(u, v, None, shape.stride, shape.padding, 1, shape.groups)
        y.backward(g)
        return y

    def result() -> list[Any]:
        y = run()
        return looks.pick([t.detach().permute(0, 2, 3, 1).double().cpu().numpy() for t in (y, u.grad, v.grad)])

    return Contender(at_best(torch, run), result)


def _jax(jax: Any, shape: Conv, dtype: str, looks: _Looks, *exact: Any) -> Contender:
    u, v, g = (jax.numpy.asarray(a, dtype) for a in (exact[0], exact[1].transpose(1, 2, 3, 0), exact[2]))
    (ph, pw) = shape.padding

    def forward(image: Any, filters: Any) -> Any:
        return jax.lax.conv_general_dilated(
            image, filters, (shape.stride, shape.stride), ((ph, ph), (pw, pw)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=shape.groups, precision="highest",
        )  # fmt: skip

    def whole(image: Any, filters: Any, dy: Any) -> Any:
        y, back = jax.vjp(forward, image, filters)
        return y, *back(dy)

    compiled = jax.jit(whole)

    def result() -> list[Any]:
        y, dx, dw = (np.asarray(a, np.float64) for a in compiled(u, v, g))
        return looks.pick([y, dx, dw.transpose(3, 0, 1, 2)])

    return Contender(lambda: jax.block_until_ready(compiled(u, v, g)), result)


SUITE = Suite(
    "convolutions, forward and both gradients",
    _FORM,
    ("conv2d", "conv2d_backward_input", "conv2d_backward_weight"),
    ("float32", "bfloat16"),
    _shapes,
    _case,
    random=True,
)
