"""Updates over flat buffers, the norm of gradients, and probes of the machine: one kernel each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._call import Call, choose

__all__ = ["adam", "clip_scale", "guard_loss", "probe", "restore", "sgd", "sum_squares"]

_PROBES = ("fma", "fma_bf16", "read", "write", "copy", "update", "copy_cached")
_MAX_GROUPS = 60  # of a step block
_GROUP = 8  # doubles of each
_FAILED = 3 + _MAX_GROUPS * _GROUP + 1  # words: counter, factor, skip flag; groups; steps skipped; failed step
_BLOCK = _FAILED + 4  # and its fault


def _segments(c: Call, segments: Sequence[Sequence[int]] | None, n: int) -> None:
    """(offset, length) of each parameter within the flat buffers; None is one parameter that fills them."""
    import numpy as np

    table = np.zeros((1 if segments is None else len(segments), 3), np.int64)  # offset, length, group and active
    table[:, :2] = [(0, n)] if segments is None else np.asarray(segments).reshape(-1, 2)
    for offset, length in table[:, :2]:
        if offset < 0 or length < 0 or offset + length > n:
            raise c.error(f"segments must lie within the {n} elements, got offset {offset} and length {length}")
    table[:, 2] = np.array([0, 1], np.int32).view(np.int64)[0]
    c.from_host("segments", table)
    c.fields.update(count=len(table), size=n, active=int(table[:, 1].sum()))


def _mirror(c: Call, mirror: Any) -> None:
    """A bfloat16 copy of float32 parameters, written with them."""
    if mirror is not None and c.dtype != "float32":
        raise c.error(f"mirror needs float32 parameters, got {c.dtype}")
    c.optional("mirror", mirror, "n", "bfloat16", written=True)


def _block(c: Call, grad_scale: float, group: Sequence[float]) -> None:
    import numpy as np

    block = np.zeros(_BLOCK)
    block[1] = grad_scale
    block[3 : 3 + len(group)] = group
    c.from_host("block", block)


def sum_squares(grad: Any, *, segments: Sequence[Sequence[int]] | None = None, impl: str | None = None) -> float:
    """The sum of the squares of a flat gradient, in float64.

    Args:
        grad: (n), float32 or float64.
        segments: (offset, length) of the parts that count, or None for all.
        impl: a candidate.

    Returns:
        The sum.

    Raises:
        ValueError: a segment that is not within `grad`.

    Example:
        >>> kernels.sum_squares(np.array([3, 4], "float32"))
        25.0
    """
    c = Call("sum_squares", impl)
    c.input("grad", grad, "n")
    _segments(c, segments, c.size["n"])
    c.output("sum", None, "1", "float64")
    return float(c.run(dtype=c.dtype)[0])


def clip_scale(sums: Any, max_norm: float, *, impl: str | None = None) -> tuple[float, float, bool]:
    """The factor that brings a norm down to a maximum.

    Args:
        sums: (count) float64 sums of squares, one for each buffer.
        max_norm: the largest norm.
        impl: a candidate.

    Returns:
        The norm; min(1, max_norm / norm); whether the norm is not finite and the step must be left out.

    Example:
        >>> kernels.clip_scale(np.array([9.0, 16.0]), 1.0)
        (5.0, 0.2, False)
    """
    import numpy as np

    c = Call("clip_scale", impl)
    c.input("sums", sums, "count", "float64")
    c.output("norm", None, "1", "float64")
    there = c.from_host("block", np.zeros(_BLOCK))
    norm = c.run(count=c.size["count"], max_norm=max_norm)
    block = there.numpy()
    return float(norm[0]), float(block[1]), bool(block.view(np.int64)[2])


def guard_loss(loss: Any, *, failed: bool = False, impl: str | None = None) -> bool:
    """Whether a step must be left out: its loss is not finite, or that of a step before it was not.

    Args:
        loss: (1), floating.
        failed: that of a step before it was not.
        impl: a candidate.

    Returns:
        Whether the step and those after it must be left out.

    Example:
        >>> kernels.guard_loss(np.array([np.inf])), kernels.guard_loss(np.array([1.0]))
        (True, False)
    """
    import numpy as np

    c = Call("guard_loss", impl)
    c.input("loss", loss, "1")
    block = np.zeros(_BLOCK)
    block.view(np.int64)[0] = 2  # the step
    block.view(np.int64)[_FAILED] = failed
    there = c.from_host("block", block)
    c.run(dtype=c.dtype)
    words = there.numpy().view(np.int64)
    return bool(words[2] and words[_FAILED])


def restore(before: Any, x: Any, *, failed: bool = True, impl: str | None = None) -> None:
    """Puts back what a step has written, where the step failed.

    Args:
        before: (n) float32, what was there before it; n is a multiple of 4.
        x: (n) float32, overwritten.
        failed: whether the step failed; else nothing is done.
        impl: a candidate.

    Raises:
        ValueError: n is not a multiple of 4.

    Example:
        >>> x = np.ones(4, "float32")
        >>> kernels.restore(np.zeros(4, "float32"), x, failed=False)
        >>> kernels.restore(np.full(4, 2, "float32"), x)
        >>> x.tolist()
        [2.0, 2.0, 2.0, 2.0]
    """
    import numpy as np

    c = Call("restore", impl)
    c.input("from", before, "n", "float32")
    c.input("to", x, "n", "float32", written=True)
    if c.size["n"] % 4:
        raise c.error(f"n must be a multiple of 4, got {c.size['n']}")
    block = np.zeros(_BLOCK)
    block.view(np.int64)[_FAILED] = failed
    c.from_host("block", block)
    c.run(bytes=4 * c.size["n"])


def sgd(
    param: Any,
    grad: Any,
    momentum_buffer: Any = None,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    grad_scale: float = 1.0,
    mirror: Any = None,
    segments: Sequence[Sequence[int]] | None = None,
    impl: str | None = None,
) -> None:
    """One step of stochastic gradient descent, in place.

    Args:
        param: (n), float32 or float64, changed.
        grad: (n).
        momentum_buffer: (n), changed, or None.
        lr: learning rate.
        momentum: factor of the buffer.
        weight_decay: times the parameter is added to the gradient.
        nesterov: looks ahead; needs the buffer.
        grad_scale: factor of the gradient.
        mirror: (n) bfloat16 that the new parameter is also written to, or None; for float32 only.
        segments: (offset, length) of the parts that change, or None for all.
        impl: a candidate.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> p = np.ones(2, "float32")
        >>> kernels.sgd(p, np.ones(2, "float32"), lr=0.5)
        >>> p
        array([0.5, 0.5], dtype=float32)
    """
    c = Call("sgd", impl)
    c.input("param", param, "n", written=True)
    c.input("grad", grad, "n")
    c.optional("momentum", momentum_buffer, "n", written=True)
    _mirror(c, mirror)
    if momentum_buffer is None and (nesterov or momentum):
        raise c.error("momentum needs momentum_buffer, got None")
    _segments(c, segments, c.size["n"])
    _block(c, grad_scale, [lr, weight_decay, 0.0, momentum, 0.0, 1.0, 1.0])
    c.run(dtype=c.dtype, nesterov=nesterov)


def adam(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    *,
    lr: float,
    step: int,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = True,
    grad_scale: float = 1.0,
    mirror: Any = None,
    segments: Sequence[Sequence[int]] | None = None,
    impl: str | None = None,
) -> None:
    """One step of Adam, or of AdamW when `decoupled`, in place.

    Source: Kingma and Ba, "Adam" (ICLR 2015); Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019).

    Args:
        param: (n), float32 or float64, changed.
        grad: (n).
        exp_avg, exp_avg_sq: (n), the averages of the gradient and of its square, changed.
        lr: learning rate.
        step: from 1 on, for the bias corrections.
        betas: decay of the two averages, each in [0, 1).
        eps: added to the root.
        weight_decay: of the weight itself when `decoupled`, else added to the gradient.
        decoupled: AdamW.
        grad_scale: factor of the gradient.
        mirror: (n) bfloat16 that the new parameter is also written to, or None; for float32 only.
        segments: (offset, length) of the parts that change, or None for all.
        impl: a candidate.

    Raises:
        ValueError: shapes that do not fit, a step below 1.

    Example:
        >>> p, m, v = np.ones(2, "float32"), np.zeros(2, "float32"), np.zeros(2, "float32")
        >>> kernels.adam(p, np.ones(2, "float32"), m, v, lr=0.5, step=1)
        >>> p.round(3)
        array([0.5, 0.5], dtype=float32)
    """
    c = Call("adam", impl)
    if step < 1:
        raise c.error(f"step must be at least 1, got {step}")
    beta1, beta2 = betas
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise c.error(f"betas must be in [0, 1), got {tuple(betas)}")
    c.input("param", param, "n", written=True)
    c.input("grad", grad, "n")
    c.input("exp_avg", exp_avg, "n", written=True)
    c.input("exp_avg_sq", exp_avg_sq, "n", written=True)
    _mirror(c, mirror)
    _segments(c, segments, c.size["n"])
    corrections = [1 / (1 - beta1**step), 1 / (1 - beta2**step) ** 0.5]
    _block(c, grad_scale, [lr, weight_decay, eps, beta1, beta2, *corrections])
    c.run(dtype=c.dtype, decoupled=decoupled)


def probe(memory: Any, kind: str, rounds: int = 1, *, impl: str | None = None) -> float:
    """What the machine can do at best; `smelt.bench.limits` times it.

    Args:
        memory: (n) float32 to work on, overwritten by ``"write"``, ``"update"`` and both copies.
        kind: ``"fma"`` (from registers), ``"fma_bf16"`` (on `memory` as pairs of bfloat16 where the CPU has a unit for them
            and there are 8192 elements, else as ``"fma"``), ``"read"``, ``"write"``, ``"copy"`` (both with non-temporal
            stores), ``"update"`` (in place) or ``"copy_cached"`` (with ordinary stores).
        rounds: how often.
        impl: a candidate.

    Returns:
        Floating-point operations, or bytes moved.

    Raises:
        ValueError: an unknown `kind`.

    Example:
        >>> kernels.probe(np.zeros(1024, "float32"), "read") > 0
        True
    """
    c = Call("probe", impl)
    number = choose("probe", "kind", kind, _PROBES)
    c.input("memory", memory, "n", "float32", written=True)
    c.output("done", None, "1", "float64")
    return float(c.run(n=c.size["n"], rounds=rounds, kind=number)[0])
