"""What ``smelt bench`` measures: each case is one piece of work, done by smelt and by its peers on the same random data."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _core, functions
from .._core import Tensor
from .shapes import GEMM, NORM, OPTIM, Gemm, random_gemm

__all__ = ["SUITES", "Case", "Contender", "peers"]

PEERS = ("numpy", "torch", "jax")
_UNIT = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        run: does it once.
        result: what it computed, as float64 arrays, for the check before anything is timed.

    Example:
        >>> smelt.bench.suites.Contender(run=lambda: None, result=lambda: []).result()
        []
    """

    run: Callable[[], Any]
    result: Callable[[], list[Any]]


@dataclass
class Case:
    """One piece of work.

    Attributes:
        name: what and which shape.
        dtype: of the data.
        flops: floating-point operations.
        nbytes: least bytes that are moved.
        stream: the limit of `smelt.bench.limits` for moving them.
        contenders: by name; smelt's come first.
        expected: what each must compute, float64, and the error that is allowed; empty: what the first computes.

    Example:
        >>> case = smelt.bench.suites.Case("gemm 2x2x2", "float32", flops=16, nbytes=48)
        >>> case.contenders
        {}
    """

    name: str
    dtype: str
    flops: float
    nbytes: float
    stream: str = "copy_gbs"
    contenders: dict[str, Contender] = field(default_factory=dict)
    expected: list[tuple[Any, Any]] = field(default_factory=list)

    def check(self) -> None:
        """Raises unless every contender computes what is expected.

        Raises:
            AssertionError: a contender's error is above the bound.

        Example:
            >>> smelt.bench.suites.Case("nothing", "float32", 0, 0).check()
        """
        import numpy as np

        for name, contender in self.contenders.items():
            contender.run()
            got_all = contender.result()
            if not self.expected:  # nothing to compute it from: the first contender's result, to rounding
                share = 2.0**-8 if self.dtype == "bfloat16" else 1e-5
                self.expected = [(np.asarray(g, np.float64), share * np.abs(g)) for g in got_all]
            for got, (wanted, bound) in zip(got_all, self.expected, strict=True):
                excess = np.max(np.abs(np.asarray(got, np.float64) - wanted) - bound, initial=-1.0)
                if not excess <= 0:
                    raise AssertionError(f"{self.name}: {name} exceeds the error bound by {excess:.3g}")


def peers(names: Sequence[str]) -> dict[str, Any]:
    """The peers' modules.

    Args:
        names: of ``"numpy"``, ``"torch"`` and ``"jax"``.

    Returns:
        Modules by name.

    Raises:
        ValueError: no such peer.
        ImportError: a peer that is not installed; the message says how to install it.

    Example:
        >>> list(smelt.bench.suites.peers(["numpy"]))
        ['numpy']
    """
    modules = {}
    for name in names:
        if name not in PEERS:
            raise ValueError(f"--against must be of {', '.join(PEERS)}, got {name!r}")
        try:
            modules[name] = importlib.import_module(name)
        except ImportError:
            raise ImportError(f"--against {name}: {name} is not installed; pip install {name}") from None
    return modules


def _at_best(torch: Any, run: Callable[[], Any]) -> Callable[[], Any]:
    """PyTorch's work with the better of 1 and all threads."""
    best = (math.inf, 1)
    for threads in {1, _core.num_threads()}:
        torch.set_num_threads(threads)
        for look in range(3):
            begin = time.perf_counter()
            run()
            seconds = time.perf_counter() - begin
            best = min(best, (seconds, threads))
            if look and seconds > 1:  # the first may be slow because it is the first; such a time needs no third look
                break

    def timed() -> Any:
        torch.set_num_threads(best[1])
        return run()

    return timed


def _forced(impl: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """The work with one candidate."""

    def forced() -> Any:
        previous = _core.forced_impl()
        _core.force_impl(impl)
        try:
            return run()
        finally:
            _core.force_impl(previous)

    return forced


def _labels(impls: Sequence[str]) -> Iterator[tuple[str, str]]:
    """smelt's contenders by name, and their candidates: the preferred one, or those that were asked for."""
    seen: list[str] = []
    for impl in impls or [""]:
        seen.append(impl)
        again = f"#{seen.count(impl)}" if seen.count(impl) > 1 else ""
        yield " ".join(filter(None, ("smelt", impl, again))), impl


def _ours(impls: Sequence[str], run: Callable[[], Sequence[Tensor]]) -> Iterator[tuple[str, Contender]]:
    """smelt's contenders."""
    for name, impl in _labels(impls):
        work = _forced(impl, run) if impl else run

        def result(work: Callable[[], Sequence[Tensor]] = work) -> list[Any]:
            return [t.astype("float64").numpy() for t in work()]

        yield name, Contender(work, result)


def _numbers(text: str, count: int, form: str) -> list[int]:
    try:
        values = [int(v) for v in text.lower().split("x")]
    except ValueError:
        values = []
    if len(values) != count or min(values, default=0) < 1:
        raise ValueError(f"--shape must be {form} with positive integers, got {text!r}")
    return values


def _rounded(array: Any, dtype: str, device: str) -> tuple[Tensor, Any]:
    """A tensor of the dtype on the device, and its values in float64."""
    tensor = _core.from_numpy(array, True).astype(dtype)
    return _core.to_device(tensor, device), tensor.astype("float64").numpy()


# ------------------------------------------------------------------------------------------------------------- gemm


def _gemm_shapes(shapes: Sequence[str], random: int, seed: int) -> list[Gemm]:
    if shapes:
        return [Gemm("given", m, n, k) for m, n, k in (_numbers(text, 3, "MxNxK") for text in shapes)]
    return random_gemm(random, seed) if random else list(GEMM)


def _gemm(shape: Gemm, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    import numpy as np

    lead = (shape.batch,) if shape.batch > 1 else ()
    m, n, k, ta, tb = shape.m, shape.n, shape.k, shape.ta, shape.tb
    a, exact_a = _rounded(rng.normal(size=(*lead, *((k, m) if ta else (m, k)))), dtype, device)
    b, exact_b = _rounded(rng.normal(size=(*lead, *((n, k) if tb else (k, n)))), dtype, device)
    left, right = (np.swapaxes(e, -1, -2) if t else e for e, t in ((exact_a, ta), (exact_b, tb)))
    size = _core.dtypes[dtype].itemsize
    case = Case(f"gemm {shape}", dtype, shape.flops, float(size * shape.batch * (m * k + k * n + m * n)))
    accumulator = _UNIT["float64" if dtype == "float64" else "float32"]
    wanted = left @ right
    bound = (k + 8) * accumulator * (np.abs(left) @ np.abs(right)) + 2 * _UNIT[dtype] * np.abs(wanted)
    case.expected = [(wanted, bound)]
    case.contenders.update(_ours(impls, lambda: [functions.matmul(a, b, ta, tb)]))
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
            _at_best(torch, lambda: torch.matmul(u, v)), lambda: [torch.matmul(u, v).double().cpu().numpy()]
        )
    if "jax" in modules and dtype != "float64":
        jax = modules["jax"]
        p, q = (jax.numpy.asarray(e, dtype) for e in (left, right))
        multiply = jax.jit(lambda s, t: jax.numpy.matmul(s, t, precision="highest"))
        case.contenders["jax"] = Contender(
            lambda: multiply(p, q).block_until_ready(), lambda: [np.asarray(multiply(p, q), np.float64)]
        )
    return case


# ------------------------------------------------------------------------------------------------------------ optim


def _optim_shapes(shapes: Sequence[str], random: int, seed: int) -> list[int]:
    return [_numbers(text, 1, "N")[0] for text in shapes] or list(OPTIM)


def _optim(n: int, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    """AdamW over n parameters: reads parameter, gradient and two averages, writes three of them."""
    import numpy as np

    from .. import nn, optim

    p0, g0 = rng.normal(size=n).astype(dtype), rng.normal(size=n).astype(dtype)
    case = Case(f"adamw {n}", dtype, 12.0 * n, 7.0 * n * _core.dtypes[dtype].itemsize, "update_gbs")
    lr, decay = 1e-3, 1e-2
    wide_p, wide_g = p0.astype(np.float64), g0.astype(np.float64)
    wanted = wide_p * (1 - lr * decay) - lr * wide_g / (np.abs(wide_g) + 1e-8)
    # The decay and the step are some five roundings each; the first step's two averages cancel to the gradient's sign.
    case.expected = [(wanted, 16 * _UNIT[dtype] * (np.abs(wide_p) + lr))]
    for name, impl in _labels(impls):
        parameter = nn.Parameter(_core.to_device(_core.from_numpy(p0, True), device))
        optimizer = optim.AdamW([parameter], lr=lr, weight_decay=decay)
        functions.sum(parameter * _core.to_device(_core.from_numpy(g0, True), device)).backward()
        step = _forced(impl, optimizer.step) if impl else optimizer.step
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


# ------------------------------------------------------------------------------------------------------------- norm


@dataclass(frozen=True)
class _Norm:
    op: str
    rows: int
    d: int

    def __str__(self) -> str:
        return f"{self.op} {self.rows}x{self.d}"


def _norm_shapes(shapes: Sequence[str], random: int, seed: int) -> list[_Norm]:
    sizes = [tuple(_numbers(text, 2, "ROWSxD")) for text in shapes] or NORM
    return [_Norm(op, rows, d) for op in ("layer_norm", "softmax") for rows, d in sizes]


def _norm(shape: _Norm, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    import numpy as np

    op, rows, d = shape.op, shape.rows, shape.d
    x, exact = _rounded(rng.normal(size=(rows, d)), dtype, device)
    case = Case(str(shape), dtype, 8.0 * rows * d, 2.0 * rows * d * _core.dtypes[dtype].itemsize)
    one, zero = functions.ones(d, device=device).astype(dtype), functions.zeros(d, device=device).astype(dtype)
    if op == "layer_norm":
        centred = exact - exact.mean(1, keepdims=True)
        wanted = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
        case.contenders.update(_ours(impls, lambda: [functions.layer_norm(x, one, zero)]))
    else:
        power = np.exp(exact - exact.max(1, keepdims=True))
        wanted = power / power.sum(1, keepdims=True)
        case.contenders.update(_ours(impls, lambda: [functions.softmax(x)]))
    # Sums in some order of blocks; a layer norm's error is relative to the row's deviation, which the result has as 1.
    case.expected = [(wanted, 8 * _UNIT[dtype] * math.log2(d + 2) * (np.abs(wanted) + (op == "layer_norm")))]
    if "numpy" in modules and dtype in ("float32", "float64"):
        case.contenders["numpy"] = _numpy_norm(op, exact.astype(dtype))
    if "torch" in modules:
        torch = modules["torch"]
        u = torch.from_numpy(exact).to(device, getattr(torch, dtype))
        weight, bias = torch.ones(d, dtype=u.dtype, device=device), torch.zeros(d, dtype=u.dtype, device=device)
        f = torch.nn.functional

        def rival() -> Any:
            return f.layer_norm(u, (d,), weight, bias) if op == "layer_norm" else f.softmax(u, -1)

        case.contenders["torch"] = Contender(_at_best(torch, rival), lambda: [rival().double().cpu().numpy()])
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
    import numpy as np

    def run() -> Any:
        if op == "softmax":
            power = np.exp(x - x.max(1, keepdims=True))
            return power / power.sum(1, keepdims=True)
        middle = x - x.mean(1, keepdims=True)
        return middle / np.sqrt((middle**2).mean(1, keepdims=True) + x.dtype.type(1e-5))

    return Contender(run, lambda: [run()])


# ------------------------------------------------------------------------------------------------------------- step


def _step_shapes(shapes: Sequence[str], random: int, seed: int) -> list[str]:
    from .models import MODELS

    for name in shapes:
        if name not in MODELS:
            raise ValueError(f"--shape must be of {', '.join(MODELS)} for step, got {name!r}")
    return list(shapes) or ["mlp", "cnn"]  # the others take long


def _step(name: str, dtype: str, impls: Sequence[str], modules: dict[str, Any], rng: Any, device: str) -> Case:
    """One training step, forward, backward and AdamW, from equal weights; the first losses must agree."""
    from . import models

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


@dataclass(frozen=True)
class Suite:
    """A kind of work.

    Attributes:
        text: what it is.
        form: how ``--shape`` is written.
        slots: of the kernels that ``--impl`` chooses from.
        dtypes: that it takes.
        shapes: from the options to shapes.
        build: from a shape, dtype, candidates, peers, random numbers and device to a case.

    Example:
        >>> smelt.bench.suites.SUITES["gemm"].form
        'MxNxK'
    """

    text: str
    form: str
    slots: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: Callable[[Sequence[str], int, int], Sequence[Any]]
    build: Callable[[Any, str, Sequence[str], dict[str, Any], Any, str], Case]


SUITES = {
    "gemm": Suite(
        "matrix products", "MxNxK", ("gemm",), ("float32", "float64", "bfloat16", "float16"), _gemm_shapes, _gemm
    ),
    "optim": Suite("AdamW over a flat buffer", "N", ("adam",), ("float32", "float64"), _optim_shapes, _optim),
    "norm": Suite(
        "layer norm and softmax", "ROWSxD", ("layer_norm", "softmax"), ("float32", "float64"), _norm_shapes, _norm
    ),
    "step": Suite(
        "training steps of whole networks",
        "mlp, cnn, block, resnet18, resnet50, gpt or gpt2",
        (),
        ("float32", "bfloat16"),
        _step_shapes,
        _step,
    ),
}
