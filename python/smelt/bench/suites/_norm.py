"""Normalisation, softmax, cross entropy, GELU and dropout: forward with backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import _core, functions, losses
from ..shapes import NORM, NORM_LARGE
from ._case import UNIT, Case, Contender, Suite, at_best, keep_memory, numbers, ours, rounded

EPS = 1e-5
GROUPS = 8  # of group norm
DROP = 0.1


@dataclass(frozen=True)
class _Work:
    op: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.op} {'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class _Op:
    """One op in every library.

    Attributes:
        passes: how often an array of the input's size is at least read and written, forward and backward together.
        flops: of an element.
        ours: from the leaves to the result.
        torch: the same of PyTorch, from the module and the leaves; images are seen as (N, C, H, W).
        plain: of NumPy arrays, and of float64 the definition: from the leaves and dy to the result and the gradients.
        vectors: how many of the leaves are vectors of channels; another array of the input's shape stands before them
            where `residual`.
    """

    passes: tuple[int, int]
    flops: float
    ours: Callable[..., Any]
    torch: Callable[..., Any]
    plain: Callable[..., list[Any]]
    vectors: int = 0
    residual: bool = False


# --------------------------------------------------------------------------------------------------------- definitions


def _normalised(dy: Any, n: Any, r: Any, w: Any, axes: tuple[int, ...], centred: bool = True) -> Any:
    """The gradient through n = (x - mean) r, or x r, over some axes."""
    g = dy * w
    inner = g - n * (g * n).mean(axes, keepdims=True)
    return r * (inner - g.mean(axes, keepdims=True) if centred else inner)


def _layer_norm(x: Any, w: Any, b: Any, dy: Any) -> list[Any]:
    n = x - x.mean(1, keepdims=True)
    r = 1 / np.sqrt((n**2).mean(1, keepdims=True) + x.dtype.type(EPS))
    n *= r
    return [n * w + b, _normalised(dy, n, r, w, (1,)), (dy * n).sum(0), dy.sum(0)]


def _rms_norm(x: Any, w: Any, dy: Any) -> list[Any]:
    r = 1 / np.sqrt((x**2).mean(1, keepdims=True) + x.dtype.type(EPS))
    n = x * r
    return [n * w, _normalised(dy, n, r, w, (1,), centred=False), (dy * n).sum(0)]


def _group_norm(x: Any, w: Any, b: Any, dy: Any) -> list[Any]:
    count, channels = x.shape[0], x.shape[-1]
    grouped = (count, -1, GROUPS, channels // GROUPS)
    n = x.reshape(grouped)
    n = n - n.mean((1, 3), keepdims=True)
    r = 1 / np.sqrt((n**2).mean((1, 3), keepdims=True) + x.dtype.type(EPS))
    n *= r
    dx = _normalised(dy.reshape(grouped), n, r, w.reshape(GROUPS, -1), (1, 3)).reshape(x.shape)
    n = n.reshape(x.shape)
    return [n * w + b, dx, (dy * n).sum((0, 1, 2)), dy.sum((0, 1, 2))]


def _batch_norm(x: Any, residual: Any, w: Any, b: Any, dy: Any) -> list[Any]:
    axes = (0, 1, 2)
    n = x - x.mean(axes)
    r = 1 / np.sqrt((n**2).mean(axes) + x.dtype.type(EPS))
    n *= r
    y = np.maximum(n * w + b + residual, 0)
    g = np.where(y > 0, dy, 0)
    return [y, _normalised(g, n, r, w, axes), g, (g * n).sum(axes), g.sum(axes)]


def _softmax(x: Any, dy: Any) -> list[Any]:
    y = np.exp(x - x.max(1, keepdims=True))
    y /= y.sum(1, keepdims=True)
    return [y, y * (dy - (dy * y).sum(1, keepdims=True))]


def _log_softmax(x: Any, dy: Any) -> list[Any]:
    y = x - x.max(1, keepdims=True)
    y -= np.log(np.exp(y).sum(1, keepdims=True))
    return [y, dy - np.exp(y) * dy.sum(1, keepdims=True)]


def _cross_entropy(x: Any, labels: Any, dy: Any) -> list[Any]:
    logs, rows = _log_softmax(x, np.zeros((1, 1), x.dtype))[0], np.arange(len(x))
    dx = np.exp(logs)
    dx[rows, labels] -= 1
    return [-logs[rows, labels].mean(), dx * (dy / len(x))]


_erf = np.vectorize(math.erf)


def _gelu(x: Any, dy: Any) -> list[Any]:
    scaled = x * x.dtype.type(0.5**0.5)
    # NumPy has no erf; in float64 ours is that of the C library.
    erf = functions.erf(_core.from_numpy(scaled, True)).numpy() if x.dtype == np.float64 else _erf(scaled)
    below = (0.5 * (1 + erf)).astype(x.dtype)
    density = np.exp(-0.5 * x * x) * x.dtype.type((2 * math.pi) ** -0.5)
    return [x * below, dy * (below + x * density)]


def _dropout(x: Any, dy: Any) -> list[Any]:
    mask = (np.random.default_rng().random(x.shape, np.float32) >= DROP) * x.dtype.type(1 / (1 - DROP))
    return [x * mask, dy * mask]


def _our_batch_norm(x: Any, residual: Any, w: Any, b: Any) -> Any:
    running = (
        functions.zeros(*w.shape, dtype=w.dtype, device=w.device),
        functions.ones(*w.shape, dtype=w.dtype, device=w.device),
    )
    return functions.batch_norm(x, w, b, *running, True, 0.1, EPS, residual, "relu")


OPS = {
    "layer_norm": _Op(
        (3, 2), 20, lambda x, w, b: functions.layer_norm(x, w, b, EPS),
        lambda torch, x, w, b: torch.nn.functional.layer_norm(x, x.shape[1:], w, b, EPS), _layer_norm, 2,
    ),
    "rms_norm": _Op(
        (3, 2), 15, lambda x, w: functions.rms_norm(x, w, EPS),
        lambda torch, x, w: torch.nn.functional.rms_norm(x, x.shape[1:], w, EPS), _rms_norm, 1,
    ),
    "group_norm": _Op(
        (3, 2), 20, lambda x, w, b: functions.group_norm(x, GROUPS, w, b, EPS),
        lambda torch, x, w, b: torch.nn.functional.group_norm(x, GROUPS, w, b, EPS), _group_norm, 2,
    ),
    # Forward: statistics, then input and residual to result; backward: the same sums, then two gradients.
    "batch_norm": _Op(
        (9, 3), 24, _our_batch_norm,
        lambda torch, x, r, w, b: torch.relu_(
            torch.nn.functional.batch_norm(x, torch.zeros_like(w), torch.ones_like(w), w, b, True, 0.1, EPS).add_(r)
        ),
        _batch_norm, 2, residual=True,
    ),
    "softmax": _Op((3, 2), 9, functions.softmax, lambda torch, x: torch.softmax(x, -1), _softmax),
    "log_softmax": _Op((3, 2), 9, functions.log_softmax, lambda torch, x: torch.log_softmax(x, -1), _log_softmax),
    "cross_entropy": _Op(
        (2, 1), 10, losses.cross_entropy, lambda torch, x, y: torch.nn.functional.cross_entropy(x, y), _cross_entropy
    ),
    "gelu": _Op((3, 2), 50, functions.gelu, lambda torch, x: torch.nn.functional.gelu(x), _gelu),
    "dropout": _Op(
        (2, 2), 2, lambda x: functions.dropout(x, DROP), lambda torch, x: torch.nn.functional.dropout(x, DROP), _dropout
    ),
}  # fmt: skip
FORM = "ROWSxD, NxHxWxC, OP, OP:SHAPE, large or OP:large"


def _shapes(shapes: Sequence[str], random: int, seed: int) -> list[_Work]:
    """Sizes alone are of every op with so many axes; those of 1 GB come when asked for."""
    works: list[_Work] = []
    for text in shapes or [""]:
        op, _, size = text.partition(":") if ":" in text or text in OPS else ("", "", text)
        if op and op not in OPS:
            raise ValueError(f"--shape must name one of {', '.join(OPS)}, got {text!r}")
        for name, listed in NORM.items():
            if op not in ("", name):
                continue
            sizes: Sequence[tuple[int, ...]] = NORM_LARGE[name] if size == "large" else listed
            if size not in ("", "large"):
                rank = len(listed[0])
                if op or size.count("x") == rank - 1 or size.count("x") not in (1, 3):
                    sizes = [tuple(numbers(size, rank, "NxHxWxC" if rank == 4 else "ROWSxD"))]
                else:
                    sizes = []
            works += [_Work(name, shape) for shape in sizes]
    return works


# ------------------------------------------------------------------------------------------------------------ the case


def _case(work: _Work, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    op, shape = OPS[work.op], work.shape
    channels, count = shape[-1], math.prod(shape)
    wide = "float32" if dtype == "bfloat16" else dtype
    if work.op == "group_norm" and channels % GROUPS:
        raise ValueError(f"--shape: channels of group_norm must be a multiple of {GROUPS}, got {channels}")
    drawn = [rng.standard_normal(channels if k > op.residual else shape) for k in range(1 + op.residual + op.vectors)]
    if op.residual:  # away from the activation's kink, where a rounding would decide the gradient
        x, residual, w, b = drawn
        residual += 0.25 * np.sign((x - x.mean((0, 1, 2))) / x.std((0, 1, 2)) * w + b + residual)
    leaves, exact = [], []
    for values in drawn:
        t, e = rounded(values, wide if values.ndim == 1 else dtype, device)
        leaves.append(t.requires_grad_())
        exact.append(e)
    others: list[Any] = []
    if work.op == "cross_entropy":
        labels = rng.integers(0, channels, shape[0])
        others, exact = [_core.to_device(_core.from_numpy(labels, True), device)], [*exact, labels]
    dy, exact_dy = rounded(rng.standard_normal(() if others else shape), wide if others else dtype, device)
    size = _core.dtypes[dtype].itemsize
    read, written = (size * count * p for p in op.passes)
    case = Case(str(work), dtype, op.flops * count, float(read + written), read=float(read), written=float(written))
    # What is in use at once: input, result, and their gradients.
    case.resident = float(size * count * (2 if others else 4 + 2 * op.residual))

    def step() -> Sequence[Any]:
        for leaf in leaves:
            leaf.grad = None
        y = op.ours(*leaves, *others)
        y.backward(dy)
        return [y.detach(), *(leaf.grad for leaf in leaves)]

    case.contenders.update(ours(impls, step))
    if "numpy" in modules and dtype in ("float32", "float64"):
        given = [e if e.dtype.kind == "i" else e.astype(dtype) for e in (*exact, exact_dy)]
        case.contenders["numpy"] = Contender(lambda: op.plain(*given), lambda: op.plain(*given))
    if "torch" in modules:
        case.contenders["torch"] = _torch(modules["torch"], op, exact, exact_dy, dtype, device)
    if "jax" in modules and dtype != "float64":
        _jax(case, work.op, modules["jax"], exact, exact_dy, dtype)
    if work.op == "dropout":
        _check_dropout(case, exact, exact_dy, dtype)
    else:
        # Roundings of random numbers are random, too: to the size of a result, errors of sums are as the logarithm of the
        # count in blocks, and as its root in one chain.
        wanted = [np.asarray(w, np.float64) for w in op.plain(*exact, exact_dy)]
        share = UNIT[dtype] * (8 * math.log2(count + 2) + 4 * math.sqrt(count / channels))
        case.expected = [(w, share * (np.abs(w) + np.sqrt(np.mean(w**2)))) for w in wanted]
    return case


def _torch(torch: Any, op: _Op, exact: Sequence[Any], exact_dy: Any, dtype: str, device: str) -> Contender:
    keep_memory()

    def seen(e: Any, kind: str) -> Any:
        t = torch.from_numpy(np.array(e)).to(device)
        t = t if e.dtype.kind == "i" else t.to(getattr(torch, kind))
        return t.permute(0, 3, 1, 2) if t.ndim == 4 else t

    wide = "float32" if dtype == "bfloat16" else dtype
    given = [seen(e, wide if e.ndim == 1 else dtype) for e in exact]
    leaves = [t.requires_grad_() for t in given if t.is_floating_point()]
    dy = seen(exact_dy, wide if exact_dy.ndim == 0 else dtype)

    def run() -> list[Any]:
        y = op.torch(torch, *given)
        return [y, *torch.autograd.grad(y, leaves, dy.to(y.dtype))]

    def result() -> list[Any]:
        done = (t.permute(0, 2, 3, 1) if t.ndim == 4 else t for t in run())
        return [t.detach().double().cpu().numpy() for t in done]

    return Contender(at_best(torch, run), result)


def _jax(case: Case, name: str, jax: Any, exact: Sequence[Any], exact_dy: Any, dtype: str) -> None:
    """Compiled, result and gradients at once; it has no fused forms of the norms, which are written out."""
    jnp = jax.numpy

    def normalise(x: Any, axes: Any, centred: bool = True) -> Any:
        middle = x - x.mean(axes, keepdims=True) if centred else x
        return middle * jax.lax.rsqrt((middle**2).mean(axes, keepdims=True) + EPS)

    def grouped(x: Any, w: Any, b: Any) -> Any:
        parts = normalise(x.reshape(x.shape[0], -1, GROUPS, x.shape[-1] // GROUPS), (1, 3))
        return parts.reshape(x.shape) * w + b

    def cross_entropy(x: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1).mean()

    forms: dict[str, Callable[..., Any]] = {
        "layer_norm": lambda x, w, b: normalise(x, 1) * w + b,
        "rms_norm": lambda x, w: normalise(x, 1, False) * w,
        "group_norm": grouped,
        "batch_norm": lambda x, r, w, b: jax.nn.relu(normalise(x, (0, 1, 2)) * w + b + r),
        "softmax": jax.nn.softmax,
        "log_softmax": jax.nn.log_softmax,
        "cross_entropy": cross_entropy,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "dropout": lambda x: jnp.where(jax.random.bernoulli(jax.random.key(0), 1 - DROP, x.shape), x / (1 - DROP), 0),
    }
    labels: Any = jnp.asarray(exact[-1]) if name == "cross_entropy" else None
    leaves = [jnp.asarray(e, dtype) for e in exact if e.dtype.kind == "f"]

    def both(dy: Any, *leaves: Any) -> Any:
        y, back = jax.vjp(forms[name], *leaves)
        return [y, *back(dy.astype(y.dtype))]

    compiled, dy = jax.jit(both), jnp.asarray(exact_dy, dtype)
    case.contenders["jax"] = Contender(
        lambda: jax.block_until_ready(compiled(dy, *leaves)),
        lambda: [np.asarray(t, np.float64) for t in compiled(dy, *leaves)],
    )


def _check_dropout(case: Case, exact: Sequence[Any], dy: Any, dtype: str) -> None:
    """The share of zeros, and whether what is kept is scaled by 1 / (1 - p), in the result and where it is kept in dx."""
    x = exact[0]

    def summary(result: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
        def summarised() -> list[Any]:
            y, dx = (np.asarray(t, np.float64) for t in result())
            kept = (y != 0) | (x == 0)
            scale = kept / (1 - DROP)
            return [(1 - kept.mean()) - DROP, np.abs(y - x * scale).max(), np.abs(dx - dy * scale).max()]

        return summarised

    case.contenders = {name: Contender(c.run, summary(c.result)) for name, c in case.contenders.items()}
    spread = 6 * math.sqrt(DROP / x.size)
    # Halves are multiplied in float32, or by the rounded scale.
    case.expected = [(np.float64(0), spread)] + [(np.float64(0), 8 * UNIT[dtype] * np.abs(t).max()) for t in (x, dy)]


SUITE = Suite(
    "normalisation, softmax, cross entropy, GELU and dropout, forward with backward",
    FORM,
    ("layer_norm", "rms_norm", "group_norm", "batch_norm", "softmax", "cross_entropy", "unary", "dropout"),
    ("float32", "float64", "bfloat16"),
    _shapes,
    _case,
)
