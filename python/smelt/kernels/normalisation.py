"""Normalisation and softmax: one kernel each."""

from __future__ import annotations

from typing import Any

from ._call import Call
from ._call import activation as _activation
from ._windows import Pair, pool_shape, window_pixels

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "group_norm",
    "group_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "softmax",
    "softmax_backward",
]


def batch_norm(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    residual: Any = None,
    activation: str | None = None,
    max_pool: Pair | None = None,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """y = activation((x - mean) rstd weight + bias + residual), with the mean and 1 / deviation of each channel.

    Args:
        x: (..., C), floating.
        weight, bias: (C), of the dtype of `x`, or float32 beside halves, as all statistics.
        running_mean, running_var: (C), updated in place when `training`, else used.
        training: statistics of this batch.
        momentum: share of this batch in the running statistics.
        eps: added to the variance.
        residual: the shape of `x`, or None.
        activation: None or ``"relu"``.
        max_pool: rows and columns of windows side by side: of images (N, H, W, C), y has the largest pixels of each; without
            `residual`.
        out: the shape of y, or None.
        impl: a candidate.

    Returns:
        y; the mean that was subtracted and 1 / deviation, (C) each; with `max_pool` also the place of each maximum, as in
        `pool2d`.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> one, zero = np.ones(2, "float32"), np.zeros(2, "float32")
        >>> x = np.array([[1, 2], [3, 6]], "float32")
        >>> y, mean, rstd = kernels.batch_norm(x, one, zero, zero.copy(), one.copy(), training=True)
        >>> mean
        array([2., 4.], dtype=float32)
    """
    c = Call("batch_norm", impl)
    if activation not in (None, "relu"):
        raise c.error(f"activation must be None or 'relu', got {activation!r}")
    c.input("x", x, "*rows C")
    pool = _pooling(c, x, max_pool)
    c.input("weight", weight, "C", c.statistics)
    c.input("bias", bias, "C", c.statistics)
    c.optional("residual", residual, "*rows C")
    c.input("running_mean", running_mean, "C", c.statistics, written=training)
    c.input("running_var", running_var, "C", c.statistics, written=training)
    c.output("y", out, "N P Q C" if pool else "*rows C")
    if training and c.size["rows"] == 0:
        raise c.error(f"training needs at least one row, got x of shape {tuple(x.shape)}")
    c.output("mean", None, "C", c.statistics)
    c.output("rstd", None, "C", c.statistics)
    if pool:
        if residual is not None:
            raise c.error("max_pool must be None with a residual")
        c.output("index", None, "N P Q C", "uint8")
    return c.run(
        rows=c.size["rows"], c=c.size["C"], momentum=momentum, eps=eps, dtype=c.dtype, training=training,
        activation=_activation("batch_norm", activation), **pool,
    )  # fmt: skip


def _pooling(c: Call, x: Any, windows: Pair | None) -> dict[str, Any]:
    """The argument of max pooling behind a batch norm, where there is one; binds N, P and Q."""
    if windows is None:
        return {}
    if len(x.shape) != 4:
        raise c.error(f"max_pool needs images (N, H, W, C), got x of shape {tuple(x.shape)}")
    c.size["N"], c.size["H"], c.size["W"] = (int(extent) for extent in x.shape[:3])
    shape = pool_shape(c, windows, None, 0)
    pixels, _ = window_pixels(shape)
    if pixels > 256:
        raise c.error(f"max_pool must have at most 256 pixels, got {pixels}")
    return {"pool": shape}


def batch_norm_backward(
    x: Any,
    weight: Any,
    mean: Any,
    rstd: Any,
    dy: Any,
    *,
    training: bool,
    y: Any = None,
    bias: Any = None,
    index: Any = None,
    max_pool: Pair | None = None,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradients of batch norm; with `y` or `bias`, those through a relu after it.

    Args:
        x: (..., C), floating.
        weight: (C), of the dtype of `x`, or float32 beside halves.
        mean, rstd: (C) of the batch, or the running ones.
        dy: the shape of `x`, or of what `max_pool` left.
        training: whether mean and rstd depend on `x`.
        y: the result of a forward with ``activation="relu"``, or None.
        bias: (C) of a forward with ``activation="relu"`` and no residual, from which the result is computed again, or None.
        index: (N, P, Q, C) of the maxima, as the forward gave it, with `max_pool`.
        max_pool: as in the forward.
        out: the shape of `x` for dx, or None.
        impl: a candidate.

    Returns:
        dx, dweight, dbias.

    Raises:
        ValueError: shapes that do not fit.
        IndexError: an index beyond the pixels of a window.

    Example:
        >>> one, zero = np.ones(2, "float32"), np.zeros(2, "float32")
        >>> x = np.array([[1, 2], [3, 6]], "float32")
        >>> dx, dweight, dbias = kernels.batch_norm_backward(x, one, zero, one, x, training=False)
        >>> dbias
        array([4., 8.], dtype=float32)
    """
    c = Call("batch_norm_backward", impl)
    c.input("x", x, "*rows C")
    pool = _pooling(c, x, max_pool)
    if (index is None) != (max_pool is None):
        raise c.error("index must be given with max_pool, and None without")
    if y is not None and (pool or bias is not None):
        raise c.error("y must be None with bias or max_pool")
    c.input("weight", weight, "C", c.statistics)
    c.optional("bias", bias, "C", c.statistics)
    c.input("mean", mean, "C", c.statistics)
    c.input("rstd", rstd, "C", c.statistics)
    c.input("dy", dy, "N P Q C" if pool else "*rows C")
    c.optional("y", y, "*rows C")
    if pool:
        c.input("index", index, "N P Q C", "uint8")
        c.check_index("index", 0, window_pixels(pool["pool"])[0])
    c.output("dx", out, "*rows C")
    c.output("dweight", None, "C", c.statistics)
    c.output("dbias", None, "C", c.statistics)
    return c.run(
        rows=c.size["rows"], c=c.size["C"], dtype=c.dtype, training=training,
        activation=_activation("batch_norm_backward", None if y is None and bias is None else "relu"), **pool,
    )  # fmt: skip


def layer_norm(
    x: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    eps: float = 1e-5,
    residual: Any = None,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """y = (x - mean) rstd weight + bias, with the mean and 1 / deviation of each row.

    Args:
        x: (..., D), floating.
        weight, bias: (D), or None; of the dtype of `x`, or float32 beside halves, as all statistics.
        eps: added to the variance.
        residual: the shape of `x`, or None; with it rows of x + residual are normalised.
        out: the shape of `x`, or None.
        impl: a candidate.

    Returns:
        y, mean (rows), rstd (rows); with a residual x + residual before them.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> y, mean, rstd = kernels.layer_norm(np.array([[1, 3]], "float32"))
        >>> y.round(3), mean
        (array([[-1.,  1.]], dtype=float32), array([2.], dtype=float32))
    """
    c = Call("layer_norm", impl)
    c.input("x", x, "*rows D")
    c.optional("weight", weight, "D", c.statistics)
    c.optional("bias", bias, "D", c.statistics)
    c.optional("residual", residual, "*rows D")
    if residual is not None:
        c.output("sum", None, "*rows D")
    c.output("y", out, "*rows D")
    c.output("mean", None, "*rows", c.statistics)
    c.output("rstd", None, "*rows", c.statistics)
    return c.run(rows=c.size["rows"], d=c.size["D"], eps=eps, dtype=c.dtype)


def layer_norm_backward(
    x: Any,
    mean: Any,
    rstd: Any,
    dy: Any,
    *,
    weight: Any = None,
    dsum: Any = None,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradients of layer norm.

    Args:
        x: (..., D), floating: what was normalised.
        mean, rstd: (rows) of the forward.
        dy: the shape of `x`.
        weight: (D), or None; of the dtype of `x`, or float32 beside halves.
        dsum: the shape of `x`, added to dx, or None.
        out: the shape of `x` for dx, or None.
        impl: a candidate.

    Returns:
        dx, dweight, dbias.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> x = np.array([[1, 3]], "float32")
        >>> y, mean, rstd = kernels.layer_norm(x)
        >>> kernels.layer_norm_backward(x, mean, rstd, np.ones_like(x))[2]
        array([1., 1.], dtype=float32)
    """
    c = Call("layer_norm_backward", impl)
    c.input("x", x, "*rows D")
    c.optional("weight", weight, "D", c.statistics)
    c.input("mean", mean, "*rows", c.statistics)
    c.input("rstd", rstd, "*rows", c.statistics)
    c.input("dy", dy, "*rows D")
    c.optional("dsum", dsum, "*rows D")
    c.output("dx", out, "*rows D")
    c.output("dweight", None, "D", c.statistics)
    c.output("dbias", None, "D", c.statistics)
    return c.run(rows=c.size["rows"], d=c.size["D"], dtype=c.dtype)


def rms_norm(
    x: Any,
    weight: Any = None,
    *,
    eps: float = 1e-5,
    residual: Any = None,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """y = x rstd weight, with 1 / root of the mean square of each row.

    Args:
        x: (..., D), floating.
        weight: (D), or None; of the dtype of `x`, or float32 beside halves.
        eps: added to the mean square.
        residual: the shape of `x`, or None; with it rows of x + residual are normalised.
        out: the shape of `x`, or None.
        impl: a candidate.

    Returns:
        y, rstd (rows); with a residual x + residual before them.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> y, rstd = kernels.rms_norm(np.array([[6, 8]], "float32"))
        >>> y.round(2)
        array([[0.85, 1.13]], dtype=float32)
    """
    c = Call("rms_norm", impl)
    c.input("x", x, "*rows D")
    c.optional("weight", weight, "D", c.statistics)
    c.optional("residual", residual, "*rows D")
    if residual is not None:
        c.output("sum", None, "*rows D")
    c.output("y", out, "*rows D")
    c.output("rstd", None, "*rows", c.statistics)
    return c.run(rows=c.size["rows"], d=c.size["D"], eps=eps, dtype=c.dtype)


def rms_norm_backward(
    x: Any, rstd: Any, dy: Any, *, weight: Any = None, dsum: Any = None, out: Any = None, impl: str | None = None
) -> Any:
    """The gradients of RMS norm.

    Args:
        x: (..., D), floating: what was normalised.
        rstd: (rows) of the forward.
        dy: the shape of `x`.
        weight: (D), or None; of the dtype of `x`, or float32 beside halves.
        dsum: the shape of `x`, added to dx, or None.
        out: the shape of `x` for dx, or None.
        impl: a candidate.

    Returns:
        dx, dweight.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> x = np.array([[1, 1]], "float32")
        >>> y, rstd = kernels.rms_norm(x)
        >>> kernels.rms_norm_backward(x, rstd, x)[1].round(3)
        array([1., 1.], dtype=float32)
    """
    c = Call("rms_norm_backward", impl)
    c.input("x", x, "*rows D")
    c.optional("weight", weight, "D", c.statistics)
    c.input("rstd", rstd, "*rows", c.statistics)
    c.input("dy", dy, "*rows D")
    c.optional("dsum", dsum, "*rows D")
    c.output("dx", out, "*rows D")
    c.output("dweight", None, "D", c.statistics)
    return c.run(rows=c.size["rows"], d=c.size["D"], dtype=c.dtype)


def group_norm(
    x: Any,
    groups: int,
    weight: Any = None,
    bias: Any = None,
    *,
    eps: float = 1e-5,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """y = (x - mean) rstd weight + bias, with the mean and 1 / deviation of each group of channels of each image.

    :func:`smelt.group_norm` takes images as they are; here the axes between the first and the last are one, as
    ``x.reshape(len(x), -1, x.shape[-1])`` makes them.

    Args:
        x: (N, positions, C), floating.
        groups: how many; divides C.
        weight, bias: (C), or None; of the dtype of `x`, or float32 beside halves, as all statistics.
        eps: added to the variance.
        out: the shape of `x`, or None.
        impl: a candidate.

    Returns:
        y, mean (N, groups), rstd (N, groups).

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> y, mean, rstd = kernels.group_norm(np.array([[[1, 3]]], "float32"), 1)
        >>> mean
        array([[2.]], dtype=float32)
    """
    c = Call("group_norm", impl)
    c.input("x", x, "N positions C")
    c.optional("weight", weight, "C", c.statistics)
    c.optional("bias", bias, "C", c.statistics)
    c.size["G"] = _groups(c, groups)
    c.output("y", out, "N positions C")
    c.output("mean", None, "N G", c.statistics)
    c.output("rstd", None, "N G", c.statistics)
    return c.run(n=c.size["N"], positions=c.size["positions"], c=c.size["C"], groups=groups, eps=eps, dtype=c.dtype)


def group_norm_backward(
    x: Any,
    groups: int,
    mean: Any,
    rstd: Any,
    dy: Any,
    *,
    weight: Any = None,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradients of group norm.

    Args:
        x: (N, positions, C), floating.
        groups: how many; divides C.
        mean, rstd: (N, groups) of the forward.
        dy: the shape of `x`.
        weight: (C), or None; of the dtype of `x`, or float32 beside halves.
        out: the shape of `x` for dx, or None.
        impl: a candidate.

    Returns:
        dx, dweight, dbias.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> x = np.array([[[1, 3]]], "float32")
        >>> y, mean, rstd = kernels.group_norm(x, 1)
        >>> kernels.group_norm_backward(x, 1, mean, rstd, x)[2]
        array([1., 3.], dtype=float32)
    """
    c = Call("group_norm_backward", impl)
    c.input("x", x, "N positions C")
    c.size["G"] = _groups(c, groups)
    c.optional("weight", weight, "C", c.statistics)
    c.input("mean", mean, "N G", c.statistics)
    c.input("rstd", rstd, "N G", c.statistics)
    c.input("dy", dy, "N positions C")
    c.output("dx", out, "N positions C")
    c.output("dweight", None, "C", c.statistics)
    c.output("dbias", None, "C", c.statistics)
    return c.run(n=c.size["N"], positions=c.size["positions"], c=c.size["C"], groups=groups, dtype=c.dtype)


def _groups(c: Call, groups: int) -> int:
    if groups < 1 or c.size["C"] % groups:
        raise c.error(f"groups must divide the channels, got {groups} groups of {c.size['C']} channels")
    return groups


def softmax(x: Any, *, log: bool = False, out: Any = None, impl: str | None = None) -> Any:
    """exp(x) divided by its sum over the last axis, or the logarithm of that.

    Args:
        x: (..., n), floating.
        log: the logarithm.
        out: the shape of `x`, or None.
        impl: a candidate.

    Returns:
        The shape of `x`.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> kernels.softmax(np.zeros((1, 4), "float32"))
        array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    c = Call("softmax", impl)
    c.input("x", x, "*rows n")
    c.output("y", out, "*rows n")
    return c.run(rows=c.size["rows"], n=c.size["n"], dtype=c.dtype, log=log)


def softmax_backward(
    y: Any, dy: Any, *, log: bool = False, accumulate: bool = False, out: Any = None, impl: str | None = None
) -> Any:
    """The gradient of softmax.

    Args:
        y: (..., n), the result of the forward.
        dy: the shape of `y`.
        log: as in the forward.
        accumulate: adds to what `out` holds.
        out: the shape of `y`, or None.
        impl: a candidate.

    Returns:
        The shape of `y`.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> kernels.softmax_backward(np.full((1, 2), 0.5, "float32"), np.array([[1, 0]], "float32"))
        array([[ 0.25, -0.25]], dtype=float32)
    """
    c = Call("softmax_backward", impl)
    c.input("y", y, "*rows n")
    c.input("dy", dy, "*rows n")
    c.output("dx", out, "*rows n", accumulate=accumulate, flag="accumulate")
    return c.run(rows=c.size["rows"], n=c.size["n"], dtype=c.dtype, log=log)
