"""Work that only moves or adds numbers: pooling, embedding, permutations, joins and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import _core, functions
from ..shapes import MEMORY
from ._case import UNIT, Case, Contender, Suite, at_best, keep_memory, ours, rounded


@dataclass(frozen=True)
class _Op:
    """One op in every library, of arrays and the numbers that MEMORY lists beside their shape.

    Attributes:
        ours: from the arrays to the result.
        torch: the same of PyTorch.
        plain: of NumPy arrays in float64: the result, and the gradient of the first array where there is `dy`.
        gradient: whether backward is measured, too.
        images: whether arrays of four axes are seen as (N, C, H, W) by PyTorch.
        summands: added up for one number, from the arrays' shapes and the numbers.
    """

    ours: Callable[..., Any]
    torch: Callable[..., Any]
    plain: Callable[..., list[Any]]
    gradient: bool = True
    images: bool = False
    summands: Callable[..., float] = lambda shapes, *numbers: 1.0


def _windows(x: Any, size: int, stride: int, padding: int) -> Any:
    """(N, P, Q, C, size, size) of padded images; the padding is -inf."""
    edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(x, edges, constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))[:, ::stride, ::stride]


def _pool(largest: bool) -> Callable[..., list[Any]]:
    def plain(x: Any, dy: Any, size: int, stride: int, padding: int) -> list[Any]:
        windows = _windows(x, size, stride, padding)
        count, rows, columns, channels = windows.shape[:4]
        flat = windows.reshape(count, rows, columns, channels, size * size)
        first = flat.argmax(-1) if largest else None
        y = flat.max(-1) if largest else np.where(np.isinf(flat), 0, flat).sum(-1) / size**2
        extents = (x.shape[1] + 2 * padding, x.shape[2] + 2 * padding)
        dx = np.zeros((count, *extents, channels))
        for k in range(size * size):
            part = np.where(first == k, dy, 0) if largest else dy / size**2
            i, j = divmod(k, size)
            dx[:, i : i + stride * rows : stride, j : j + stride * columns : stride] += part
        return [y, dx[:, padding : padding + x.shape[1], padding : padding + x.shape[2]]]

    return plain


def _embedding(w: Any, index: Any, dy: Any) -> list[Any]:
    dw = np.zeros_like(w)
    np.add.at(dw, index.reshape(-1), dy.reshape(-1, w.shape[1]))
    return [w[index], dw]


def _reduction(name: str) -> _Op:
    return _Op(
        lambda x, axis: getattr(functions, name)(x, axis),
        lambda torch, x, axis: torch.amax(x, axis) if name == "max" else getattr(torch, name)(x, axis),
        lambda x, axis: [getattr(np, name)(x, axis)],
        gradient=False,
        summands=lambda shapes, axis: 1.0 if name == "max" else float(shapes[0][axis]),
    )


OPS = {
    "max_pool2d": _Op(
        functions.max_pool2d, lambda torch, x, *window: torch.nn.functional.max_pool2d(x, *window), _pool(True),
        images=True, summands=lambda shapes, size, stride, padding: size**2,
    ),
    "avg_pool2d": _Op(
        functions.avg_pool2d, lambda torch, x, *window: torch.nn.functional.avg_pool2d(x, *window), _pool(False),
        images=True, summands=lambda shapes, size, stride, padding: size**2,
    ),
    "embedding": _Op(
        lambda w, index: functions.embedding(index, w), lambda torch, w, index: torch.nn.functional.embedding(index, w),
        _embedding, summands=lambda shapes: 16 + 8 * math.prod(shapes[1]) / shapes[0][0],
    ),
    "permute": _Op(
        lambda x, *axes: x.permute(*axes), lambda torch, x, *axes: x.permute(*axes).contiguous(),
        lambda x, *axes: [x.transpose(axes)], gradient=False,
    ),
    # Its gradients are views in PyTorch, copies here: the result alone.
    "concat": _Op(
        lambda x, y, axis: functions.concat([x, y], axis), lambda torch, x, y, axis: torch.cat([x, y], axis),
        lambda x, y, axis: [np.concatenate([x, y], axis)], gradient=False,
    ),
    "sum": _reduction("sum"),
    "mean": _reduction("mean"),
    "max": _reduction("max"),
}  # fmt: skip


@dataclass(frozen=True)
class _Work:
    op: str
    shapes: tuple[tuple[int, ...], ...]  # of the arrays; those of indices for embedding come second
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        shapes = " ".join("x".join(map(str, s)) for s in self.shapes)
        return f"{self.op} {shapes}" + (f" {','.join(map(str, self.numbers))}" if self.numbers else "")


FORM = "OP or OP:SHAPE[+SHAPE][/NUMBERS], as max_pool2d:8x28x28x32/2,2,0"


def _shapes(shapes: Sequence[str], random: int, seed: int) -> list[_Work]:
    works: list[_Work] = []
    for text in shapes or OPS:
        op, _, rest = text.partition(":")
        if op not in OPS:
            raise ValueError(f"--shape must name one of {', '.join(OPS)}, got {text!r}")
        if not rest:
            works += [_Work(op, *listed) for listed in MEMORY[op]]
            continue
        arrays, _, given = rest.partition("/")
        try:
            sizes = tuple(tuple(int(n) for n in a.split("x")) for a in arrays.split("+"))
            options = tuple(int(n) for n in given.split(",") if n)
        except ValueError:
            raise ValueError(f"--shape must be {FORM}, got {text!r}") from None
        ranks, count = [len(a) for a in MEMORY[op][0][0]], len(MEMORY[op][0][1])
        if len(sizes) != len(ranks) or (op not in ("permute", "concat", "embedding") and len(options) != count):
            raise ValueError(f"--shape: {op} takes {len(ranks)} arrays and {count} numbers, got {text!r}")
        works.append(_Work(op, sizes, options))
    return works


def _case(work: _Work, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    op, numbers, size = OPS[work.op], work.numbers, _core.dtypes[dtype].itemsize
    arrays, exact = [], []
    for k, shape in enumerate(work.shapes):
        if k == 1 and work.op == "embedding":
            index = rng.integers(0, work.shapes[0][0], shape)
            arrays.append(_core.to_device(_core.from_numpy(index, True), device))
            exact.append(index)
            continue
        t, e = rounded(rng.standard_normal(shape), dtype, device)
        arrays.append(t.requires_grad_() if op.gradient else t)
        exact.append(e)

    def result() -> Any:
        return op.ours(*arrays, *numbers)

    out = tuple(result().shape)
    dy, exact_dy = rounded(rng.standard_normal(out), dtype, device)

    def step() -> Sequence[Any]:
        if not op.gradient:
            return [result()]
        for t in arrays:
            t.grad = None
        y = result()
        y.backward(dy)
        return [y.detach(), arrays[0].grad]

    floating = size * sum(e.size for e in exact if e.dtype.kind == "f")
    given = size * (math.prod(out) if work.op == "embedding" else 0) or floating
    written = float(size * math.prod(out) + (floating if op.gradient else 0))
    read = float(given + (size * math.prod(out) if op.gradient else 0))
    case = Case(
        str(work), dtype, (read + written) / size, read + written, read=read, written=written, resident=read + written
    )
    case.contenders.update(ours(impls, step))
    if "torch" in modules:
        case.contenders["torch"] = _torch(modules["torch"], op, exact, exact_dy, numbers, dtype, device)
    wanted = op.plain(*exact, *([exact_dy] if op.gradient else []), *numbers)
    share = UNIT[dtype] * 2 * op.summands(work.shapes, *numbers)
    case.expected = [(w, share * (np.abs(w) + np.sqrt(np.mean(np.square(w))) + 4 * (op.summands(work.shapes, *numbers) > 1)))
                     for w in wanted]  # fmt: skip
    return case


def _torch(
    torch: Any, op: _Op, exact: Sequence[Any], exact_dy: Any, numbers: Sequence[int], dtype: str, device: str
) -> Contender:
    keep_memory()

    def seen(e: Any) -> Any:
        t = torch.from_numpy(np.array(e)).to(device)
        t = t if e.dtype.kind == "i" else t.to(getattr(torch, dtype))
        return t.permute(0, 3, 1, 2) if op.images else t

    given = [seen(e) for e in exact]
    leaves = [t.requires_grad_() for t in given if t.is_floating_point() and op.gradient]
    dy = seen(exact_dy)

    def run() -> list[Any]:
        y = op.torch(torch, *given, *numbers)
        return [y, *torch.autograd.grad(y, leaves, dy)] if leaves else [y]

    def result() -> list[Any]:
        done = (t.permute(0, 2, 3, 1) if op.images else t for t in run()[:2])
        return [t.detach().double().cpu().numpy() for t in done]

    return Contender(at_best(torch, run), result)


SUITE = Suite(
    "pooling, embedding, permutations, joins and reductions",
    FORM,
    ("pool2d", "put", "take", "copy", "reduce"),
    ("float32", "float64", "bfloat16"),
    _shapes,
    _case,
)
