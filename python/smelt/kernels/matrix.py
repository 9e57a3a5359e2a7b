"""Matrix products, convolutions and pooling: one kernel each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._call import Call
from ._call import activation as _activation
from ._windows import Pair, pair, pool_shape, window_pixels

__all__ = [
    "conv2d",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "gemm",
    "pool2d",
    "pool2d_backward",
]


def gemm(
    a: Any,
    b: Any,
    bias: Any = None,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    alpha: float = 1.0,
    activation: str | None = None,
    residual: Any = None,
    column_sums: Any = None,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """c = activation(alpha a b + bias + residual + c), the last term, what `out` held, only with `accumulate`.

    Accumulates in float32 (in float64 for float64).

    Args:
        a: (M, K) or (batch, M, K), floating; (K, M) with `transpose_a`.
        b: (K, N) or (batch, K, N), the dtype of `a`; (N, K) with `transpose_b`. Without a batch it serves the whole one.
        bias: (N), or None.
        transpose_a, transpose_b: whether the last two axes are stored the other way round.
        alpha: factor of the product.
        activation: ``"relu"``, ``"tanh"``, ``"sigmoid"``, ``"gelu"``, ``"gelu_tanh"``, ``"silu"`` or None.
        residual: as `out`, added before the activation; or None.
        column_sums: (N) float32 (float64 for float64) to write sums of the columns of `out` to, of a single product; or None.
        accumulate: adds to what `out` holds, before the activation.
        out: (M, N) or (batch, M, N) to write to, or None; of the dtype of `a`, or float32 where that is a half.
        impl: a candidate's name or a prefix that fits one (`impls`).

    Returns:
        `out`, or a new array.

    Raises:
        ValueError: shapes that do not fit, arrays that are not row-major or overlap, an unknown `impl`; sums of a batch.
        TypeError: dtypes that differ.

    Example:
        >>> a, b = np.ones((2, 3), "float32"), np.ones((3, 4), "float32")
        >>> kernels.gemm(a, b, activation="relu", out=np.empty((2, 4), "float32"))
        array([[3., 3., 3., 3.],
               [3., 3., 3., 3.]], dtype=float32)
    """
    c = Call("gemm", impl)
    batch_a, batch_b = ("batch " if getattr(x, "ndim", 2) == 3 else "" for x in (a, b))
    c.input("a", a, batch_a + ("K M" if transpose_a else "M K"))
    c.input("b", b, batch_b + ("N K" if transpose_b else "K N"))
    c.optional("bias", bias, "N")
    result = ("batch " if batch_a or batch_b else "") + "M N"
    c_dtype = c.sums("c", out)
    c.optional("residual", residual, result, c_dtype)
    c.output("c", out, result, c_dtype, accumulate=accumulate, flag="accumulate")
    c.optional("column_sums", column_sums, "N", c.statistics, written=True)
    if column_sums is not None and c.size.get("batch", 1) != 1:
        raise c.error(f"column_sums are those of a single product, got a batch of {c.size['batch']}")
    m, n, k = (c.size[letter] for letter in "MNK")
    return c.run(
        m=m, n=n, k=k, batch=c.size.get("batch", 1), lda=m if transpose_a else k, ldb=k if transpose_b else n, ldc=n,
        batch_stride_a=m * k if batch_a else 0, batch_stride_b=k * n if batch_b else 0, batch_stride_c=m * n,
        alpha=alpha, dtype=c.dtype, c_dtype=c_dtype, activation=_activation("gemm", activation), transpose_a=transpose_a,
        transpose_b=transpose_b,
    )  # fmt: skip


def _conv_shape(c: Call, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> dict[str, Any]:
    """The arguments of a convolution; binds P and Q."""
    s = c.size
    if groups == 1 and s["C"] != s["c"]:
        raise c.error(f"weight has {s['c']} input channels, input has {s['C']}")
    if groups < 1 or s["K"] % groups or s["C"] != s["c"] * groups:
        raise c.error(
            f"groups must divide K = {s['K']} and make C = {s['C']} groups times the weight's {s['c']}, got {groups}"
        )
    steps = [pair(c.slot, n, v) for n, v in (("stride", stride), ("padding", padding), ("dilation", dilation))]
    (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w) = steps
    for out, size, kernel, pad, step, spread in (
        ("P", s["H"], s["R"], pad_h, stride_h, dilation_h),
        ("Q", s["W"], s["S"], pad_w, stride_w, dilation_w),
    ):
        extent = (size + 2 * pad - spread * (kernel - 1) - 1) // step + 1 if kernel else 0
        if extent < 1:
            raise c.error(f"kernel must fit the padded input of {size + 2 * pad}, got {kernel} with dilation {spread}")
        if s.setdefault(out, extent) != extent:
            raise c.error(f"dy must have {out} = {extent}, got {s[out]}")
    return {
        **{letter.lower(): s[letter] for letter in "NHWCKRSPQ"},
        "stride": steps[0],
        "dilation": steps[2],
        "pad": steps[1],
        "groups": groups,
    }


def conv2d(
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """A convolution of images.

    Args:
        x: (N, H, W, C), floating.
        w: (K, R, S, C / groups).
        bias: (K), or None.
        stride, padding, dilation: of rows and columns, one number or two.
        groups: how many groups of channels.
        activation: as for `gemm`.
        out: (N, P, Q, K) to write to, or None.
        impl: a candidate.

    Returns:
        (N, P, Q, K).

    Raises:
        ValueError: shapes that do not fit, arrays that are not row-major or overlap, an unknown `impl`.

    Example:
        >>> kernels.conv2d(np.ones((1, 5, 5, 3), "float32"), np.ones((2, 3, 3, 3), "float32")).shape
        (1, 3, 3, 2)
    """
    c = Call("conv2d", impl)
    c.input("x", x, "N H W C")
    c.input("w", w, "K R S c")
    c.optional("bias", bias, "K")
    shape = _conv_shape(c, stride, padding, dilation, groups)
    c.output("y", out, "N P Q K")
    return c.run(shape=shape, dtype=c.dtype, activation=_activation("conv2d", activation))


def conv2d_backward_input(
    dy: Any,
    w: Any,
    size: Sequence[int],
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradient of a convolution for its input.

    Args:
        dy: (N, P, Q, K), floating.
        w: (K, R, S, C / groups).
        size: (H, W) of the input.
        stride, padding, dilation: of rows and columns.
        groups: how many groups of channels.
        accumulate: adds to what `out` holds.
        out: (N, H, W, C) to write to, or None; of the dtype of `dy`, or float32 where that is a half.
        impl: a candidate.

    Returns:
        (N, H, W, C).

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> dy, w = np.ones((1, 3, 3, 2), "float32"), np.ones((2, 3, 3, 3), "float32")
        >>> kernels.conv2d_backward_input(dy, w, (5, 5)).shape
        (1, 5, 5, 3)
    """
    c = Call("conv2d_backward_input", impl)
    c.input("dy", dy, "N P Q K")
    c.input("w", w, "K R S c")
    c.size["H"], c.size["W"] = (int(n) for n in size)
    c.size["C"] = c.size["c"] * groups
    shape = _conv_shape(c, stride, padding, dilation, groups)
    dx_dtype = c.sums("dx", out)
    c.output("dx", out, "N H W C", dx_dtype, accumulate=accumulate, flag="accumulate")
    return c.run(shape=shape, dtype=c.dtype, dx_dtype=dx_dtype)


def conv2d_backward_weight(
    x: Any,
    dy: Any,
    size: Sequence[int],
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradient of a convolution for its weight.

    Args:
        x: (N, H, W, C), floating.
        dy: (N, P, Q, K).
        size: (R, S) of the weight.
        stride, padding, dilation: of rows and columns.
        groups: how many groups of channels.
        accumulate: adds to what `out` holds.
        out: (K, R, S, C / groups) to write to, or None; of the dtype of `x`, or float32 where that is a half.
        impl: a candidate.

    Returns:
        (K, R, S, C / groups).

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> x, dy = np.ones((1, 5, 5, 3), "float32"), np.ones((1, 3, 3, 2), "float32")
        >>> kernels.conv2d_backward_weight(x, dy, (3, 3)).shape
        (2, 3, 3, 3)
    """
    c = Call("conv2d_backward_weight", impl)
    c.input("x", x, "N H W C")
    c.input("dy", dy, "N P Q K")
    c.size["R"], c.size["S"] = (int(n) for n in size)
    c.size["c"] = c.size["C"] // max(groups, 1)
    shape = _conv_shape(c, stride, padding, dilation, groups)
    dw_dtype = c.sums("dw", out)
    c.output("dw", out, "K R S c", dw_dtype, accumulate=accumulate, flag="accumulate")
    return c.run(shape=shape, dtype=c.dtype, dw_dtype=dw_dtype)


def pool2d(
    x: Any,
    kernel: Pair,
    *,
    stride: Pair | None = None,
    padding: Pair = 0,
    max: bool = True,
    count_include_pad: bool = True,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The maximum or the mean of each window of images.

    Args:
        x: (N, H, W, C), floating.
        kernel: rows and columns of a window, one number or two.
        stride: steps of the window; `kernel` when None.
        padding: rows and columns around the image.
        max: the maximum and its place, else the mean.
        count_include_pad: whether the padding counts in the divisor of a mean.
        out: (N, P, Q, C) to write to, or None.
        impl: a candidate.

    Returns:
        (N, P, Q, C); with `max` also the place of each maximum among those pixels of its window that lie in the image, row
        by row: uint8, or int32 where a window has more than 256.

    Raises:
        ValueError: a window that does not fit.

    Example:
        >>> y, index = kernels.pool2d(np.arange(16, dtype="float32").reshape(1, 4, 4, 1), 2)
        >>> index.ravel()
        array([3, 3, 3, 3], dtype=uint8)
    """
    c = Call("pool2d", impl)
    c.input("x", x, "N H W C")
    shape = pool_shape(c, kernel, stride, padding)
    c.output("y", out, "N P Q C")
    index_dtype = window_pixels(shape)[1]
    if max:
        c.output("index", None, "N P Q C", index_dtype)
    return c.run(shape=shape, dtype=c.dtype, index_dtype=index_dtype, max=max, count_include_pad=count_include_pad)


def pool2d_backward(
    dy: Any,
    size: Sequence[int],
    kernel: Pair,
    *,
    index: Any = None,
    stride: Pair | None = None,
    padding: Pair = 0,
    count_include_pad: bool = True,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradient of pooling.

    Args:
        dy: (N, P, Q, C), floating.
        size: (H, W) of the input.
        kernel: rows and columns of a window.
        index: (N, P, Q, C) of the maxima, as `pool2d` gives it; None for means.
        stride, padding: as in the forward.
        count_include_pad: whether the padding counts in the divisor of a mean.
        accumulate: adds to what `out` holds.
        out: (N, H, W, C) to write to, or None.
        impl: a candidate.

    Returns:
        (N, H, W, C).

    Raises:
        ValueError: shapes that do not fit.
        IndexError: an index beyond the pixels of a window.

    Example:
        >>> kernels.pool2d_backward(np.ones((1, 1, 1, 1), "float32"), (2, 2), 2).ravel()
        array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    c = Call("pool2d_backward", impl)
    c.input("dy", dy, "N P Q C")
    c.size["H"], c.size["W"] = (int(n) for n in size)
    shape = pool_shape(c, kernel, stride, padding)
    pixels, index_dtype = window_pixels(shape)
    c.optional("index", index, "N P Q C", index_dtype)
    c.check_index("index", 0, pixels)
    c.output("dx", out, "N H W C", accumulate=accumulate, flag="accumulate")
    return c.run(
        shape=shape, dtype=c.dtype, index_dtype=index_dtype, max=index is not None, count_include_pad=count_include_pad
    )
