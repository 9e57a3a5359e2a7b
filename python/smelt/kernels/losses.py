"""Losses: one kernel each."""

from __future__ import annotations

from typing import Any

from ._call import REDUCTIONS, Call, choose

__all__ = ["cross_entropy", "cross_entropy_backward", "loss", "loss_backward"]

_LOSSES = ("mse", "l1", "huber", "bce_with_logits")


def cross_entropy(
    logits: Any,
    labels: Any,
    *,
    weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The negative logarithm of the softmax at each label.

    Args:
        logits: (..., classes), floating.
        labels: (...) int64, in [0, classes) or `ignore_index`.
        weight: (classes), or None; of the dtype of `logits`, or float32 beside halves, as all results.
        label_smoothing: share of the uniform distribution in the target.
        ignore_index: rows with this label count nothing.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        out: (...) with ``"none"``, else (1), or None.
        impl: a candidate.

    Returns:
        loss; (rows, 2) the largest logit of each row and the logarithm of the sum of exp(logit - largest); (1) the divisor.

    Raises:
        ValueError: shapes that do not fit.
        IndexError: a label out of range.

    Example:
        >>> loss, lse, total = kernels.cross_entropy(np.zeros((2, 4), "float32"), np.array([0, 3]))
        >>> loss
        array([1.3862944], dtype=float32)
    """
    c = Call("cross_entropy", impl)
    c.input("logits", logits, "*rows classes")
    c.input("labels", labels, "*rows", "int64")
    c.optional("weight", weight, "classes", c.statistics)
    c.check_index("labels", 0, c.size["classes"], ignore_index)
    c.output("loss", out, "*rows" if reduction == "none" else "1", c.statistics)
    c.output("lse", None, "rows 2", c.statistics)
    c.output("total_weight", None, "1", c.statistics)
    return c.run(
        rows=c.size["rows"], classes=c.size["classes"], ignore_index=ignore_index, label_smoothing=label_smoothing,
        dtype=c.dtype, reduction=choose("cross_entropy", "reduction", reduction, REDUCTIONS),
    )  # fmt: skip


def cross_entropy_backward(
    logits: Any,
    labels: Any,
    lse: Any,
    total_weight: Any,
    dloss: Any,
    *,
    weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradient of cross entropy for the logits.

    Args:
        logits: (..., classes), floating.
        labels: (...) int64.
        lse: (rows, 2) of the forward.
        total_weight: (1) of the forward.
        dloss: (...) with ``"none"``, else (1).
        weight: (classes), or None.
        label_smoothing, ignore_index, reduction: as in the forward.
        accumulate: adds to what `out` holds.
        out: the shape of `logits`, or None.
        impl: a candidate.

    Returns:
        The shape of `logits`.

    Raises:
        ValueError: shapes that do not fit.
        IndexError: a label out of range.

    Example:
        >>> x, labels = np.zeros((1, 2), "float32"), np.array([1])
        >>> loss, lse, total = kernels.cross_entropy(x, labels)
        >>> kernels.cross_entropy_backward(x, labels, lse, total, np.ones(1, "float32"))
        array([[ 0.5, -0.5]], dtype=float32)
    """
    c = Call("cross_entropy_backward", impl)
    c.input("logits", logits, "*rows classes")
    c.input("labels", labels, "*rows", "int64")
    c.optional("weight", weight, "classes", c.statistics)
    c.check_index("labels", 0, c.size["classes"], ignore_index)
    c.input("lse", lse, "rows 2", c.statistics)
    c.input("total_weight", total_weight, "1", c.statistics)
    c.input("dloss", dloss, "*rows" if reduction == "none" else "1", c.statistics)
    c.output("dlogits", out, "*rows classes", accumulate=accumulate, flag="accumulate")
    return c.run(
        rows=c.size["rows"], classes=c.size["classes"], ignore_index=ignore_index, label_smoothing=label_smoothing,
        dtype=c.dtype, reduction=choose("cross_entropy_backward", "reduction", reduction, REDUCTIONS),
    )  # fmt: skip


def loss(
    x: Any,
    target: Any,
    op: str,
    *,
    pos_weight: Any = None,
    delta: float = 1.0,
    reduction: str = "mean",
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """A loss of predictions against targets, element by element.

    Args:
        x: any shape, floating: predictions, or logits.
        target: the shape of `x`.
        op: ``"mse"``, ``"l1"``, ``"huber"`` or ``"bce_with_logits"``.
        pos_weight: (period) weights of the positive term, repeated over the elements; ``"bce_with_logits"`` only.
        delta: where ``"huber"`` becomes linear.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        out: the shape of `x` with ``"none"``, else (1), or None.
        impl: a candidate.

    Returns:
        `out`, or a new array.

    Raises:
        ValueError: shapes that do not fit, an unknown `op`.

    Example:
        >>> kernels.loss(np.array([1, 2], "float32"), np.array([1, 4], "float32"), "mse")
        array([2.], dtype=float32)
    """
    c = Call("loss", impl)
    c.input("x", x, "*n")
    c.input("target", target, "*n")
    c.optional("pos_weight", pos_weight, "period")
    c.output("loss", out, "*n" if reduction == "none" else "1")
    return c.run(**_options(c, op, pos_weight, delta, reduction))


def loss_backward(
    x: Any,
    target: Any,
    dloss: Any,
    op: str,
    *,
    pos_weight: Any = None,
    delta: float = 1.0,
    reduction: str = "mean",
    sign: float = 1.0,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradient of such a loss for `x`.

    Args:
        x: any shape, floating.
        target: the shape of `x`.
        dloss: the shape of `x` with ``"none"``, else (1).
        op, pos_weight, delta, reduction: as in the forward.
        sign: factor; -1 gives the gradient for the target of ``"mse"``, ``"l1"`` and ``"huber"``.
        accumulate: adds to what `out` holds.
        out: the shape of `x`, or None.
        impl: a candidate.

    Returns:
        The shape of `x`.

    Raises:
        ValueError: shapes that do not fit, an unknown `op`.

    Example:
        >>> x, target, one = np.array([1, 2], "float32"), np.array([1, 4], "float32"), np.ones(1, "float32")
        >>> kernels.loss_backward(x, target, one, "mse")
        array([ 0., -2.], dtype=float32)
    """
    c = Call("loss_backward", impl)
    c.input("x", x, "*n")
    c.input("target", target, "*n")
    c.optional("pos_weight", pos_weight, "period")
    c.input("dloss", dloss, "*n" if reduction == "none" else "1")
    c.output("dx", out, "*n", accumulate=accumulate, flag="accumulate")
    return c.run(sign=sign, **_options(c, op, pos_weight, delta, reduction))


def _options(c: Call, op: str, pos_weight: Any, delta: float, reduction: str) -> dict[str, Any]:
    n, period = c.size["n"], c.size.get("period", 1)
    if pos_weight is not None and (op != "bce_with_logits" or period == 0 or n % period):
        raise c.error(f"pos_weight needs op 'bce_with_logits' and a length that divides {n}, got {op!r} and {period}")
    return {
        "n": n, "period": period, "delta": delta, "dtype": c.dtype, "op": choose(c.slot, "op", op, _LOSSES),
        "reduction": choose(c.slot, "reduction", reduction, REDUCTIONS),
    }  # fmt: skip
