"""Convolution, pooling, normalisation, dropout and softmax. Images are (N, H, W, C), sequences (N, L, C).

float32 accumulates in float32 in an order that depends on the shape alone; float64 in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import _core
from ._types import Pair, Tensor, as_axis, as_count, as_number, pair

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "dropout",
    "global_avg_pool2d",
    "global_max_pool2d",
    "layer_norm",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "softmax",
]


def _padding(op: str, padding: Pair | str) -> tuple[int, int] | None:
    if isinstance(padding, str):
        if padding == "same":
            return None
        if padding == "valid":
            return 0, 0
        raise ValueError(f"{op}: padding must be a number, a pair, 'same' or 'valid', got {padding!r}")
    return pair(f"{op}: padding", padding)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Tensor:
    """Cross-correlation of images with kernels, plus bias, through an activation.

    Args:
        x: floating images (N, H, W, C).
        weight: kernels (K, R, S, C / groups) of the same dtype.
        bias: (K,), or None.
        stride: pixels from one output to the next, a number or (rows, columns).
        padding: zeros around the image; ``"same"`` gives ceil(H / stride) rows, an odd zero going after.
        dilation: pixels from one tap of the kernel to the next.
        groups: channels and kernels are cut into so many independent groups.
        activation: None, ``"relu"``, ``"tanh"``, ``"sigmoid"``, ``"gelu"``, ``"gelu_tanh"`` or ``"silu"``.

    Returns:
        Images (N, P, Q, K) with P = (H + 2 padding - dilation (R - 1) - 1) // stride + 1, Q likewise.

    Raises:
        ValueError: channels disagree, or the kernel is larger than the padded image.
        TypeError: the dtypes disagree.

    Example:
        >>> smelt.conv2d(smelt.ones(1, 4, 4, 1), smelt.ones(8, 3, 3, 1), padding="same").shape
        (1, 4, 4, 8)
    """
    return _core.conv2d(
        x, weight, bias, pair("conv2d: stride", stride), _padding("conv2d", padding),
        pair("conv2d: dilation", dilation), as_count("conv2d: groups", groups), activation,
    )  # fmt: skip


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Tensor:
    """Cross-correlation of sequences with kernels, plus bias, through an activation.

    Args:
        x: floating sequences (N, L, C).
        weight: kernels (K, R, C / groups) of the same dtype.
        bias: (K,), or None.
        stride: steps from one output to the next.
        padding: zeros around the sequence, or ``"same"``.
        dilation: steps from one tap of the kernel to the next.
        groups: channels and kernels are cut into so many independent groups.
        activation: as in :func:`conv2d`.

    Returns:
        Sequences (N, P, K).

    Raises:
        ValueError: channels disagree, or the kernel is longer than the padded sequence.

    Example:
        >>> smelt.conv1d(smelt.ones(2, 10, 3), smelt.ones(4, 5, 3)).shape
        (2, 6, 4)
    """
    if isinstance(padding, Sequence) and not isinstance(padding, str):
        raise ValueError(f"conv1d: padding must be a number, 'same' or 'valid', got {padding!r}")
    pads = _padding("conv1d", padding)
    return _core.conv1d(
        x, weight, bias, as_count("conv1d: stride", stride), None if pads is None else pads[1],
        as_count("conv1d: dilation", dilation), as_count("conv1d: groups", groups), activation,
    )  # fmt: skip


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    activation: str | None = None,
) -> Tensor:
    """The transpose of :func:`conv2d` as a linear map, plus bias, through an activation: upsampling with trained kernels.

    Each input pixel adds its multiple of a kernel to the output, ``stride`` pixels further on (Dumoulin and Visin, 2016). The
    weight lies in memory as that of the convolution from the output's channels to the input's does, and the kernels are that
    convolution's own.

    Args:
        x: floating images (N, P, Q, K).
        weight: kernels (K, R, S, C / groups) of the same dtype, K the input's channels and C the output's.
        bias: (C,), or None.
        stride: pixels of the output from one input pixel to the next, a number or (rows, columns).
        padding: pixels that are cut from each side of the output.
        output_padding: rows and columns more at the end of the output, below ``stride`` or ``dilation``: which of the sizes
            that a convolution maps to (P, Q) it shall have.
        groups: channels and kernels are cut into so many independent groups.
        dilation: pixels from one tap of the kernel to the next.
        activation: as in :func:`conv2d`.

    Returns:
        Images (N, H, W, C) with H = (P - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1, W likewise.

    Raises:
        ValueError: channels disagree, or nothing of the output is left.
        TypeError: the dtypes disagree.

    Example:
        >>> smelt.conv_transpose2d(smelt.ones(1, 2, 2, 1), smelt.ones(1, 2, 2, 8), stride=2).shape
        (1, 4, 4, 8)
    """
    op = "conv_transpose2d"
    return _core.conv_transpose2d(
        x, weight, bias, pair(f"{op}: stride", stride), pair(f"{op}: padding", padding),
        pair(f"{op}: output_padding", output_padding), as_count(f"{op}: groups", groups),
        pair(f"{op}: dilation", dilation), activation,
    )  # fmt: skip


def conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
    activation: str | None = None,
) -> Tensor:
    """The transpose of :func:`conv1d` as a linear map, plus bias, through an activation.

    Args:
        x: floating sequences (N, P, K).
        weight: kernels (K, R, C / groups) of the same dtype, K the input's channels and C the output's.
        bias: (C,), or None.
        stride: steps of the output from one input step to the next.
        padding: steps that are cut from each side of the output.
        output_padding: steps more at the end of the output, below ``stride`` or ``dilation``.
        groups: channels and kernels are cut into so many independent groups.
        dilation: steps from one tap of the kernel to the next.
        activation: as in :func:`conv2d`.

    Returns:
        Sequences (N, L, C) with L = (P - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1.

    Raises:
        ValueError: channels disagree, or nothing of the output is left.

    Example:
        >>> smelt.conv_transpose1d(smelt.ones(1, 3, 1), smelt.ones(1, 2, 1)).flatten()
        tensor([1., 2., 2., 1.])
    """
    op = "conv_transpose1d"
    return _core.conv_transpose1d(
        x, weight, bias, as_count(f"{op}: stride", stride), as_count(f"{op}: padding", padding),
        as_count(f"{op}: output_padding", output_padding), as_count(f"{op}: groups", groups),
        as_count(f"{op}: dilation", dilation), activation,
    )  # fmt: skip


def max_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """The largest element of each window; the first of equal ones takes the gradient, a NaN wins.

    Args:
        x: floating images (N, H, W, C).
        kernel_size: extents of the window, a number or (rows, columns).
        stride: pixels from window to window, by default the kernel size.
        padding: pixels outside the image that windows may reach, at most half the kernel.

    Returns:
        Images (N, P, Q, C).

    Raises:
        ValueError: the window is larger than the padded image.

    Example:
        >>> smelt.max_pool2d(smelt.arange(4.0).reshape(1, 2, 2, 1), 2).item()
        3.0
    """
    kernel = pair("max_pool2d: kernel_size", kernel_size)
    steps = kernel if stride is None else pair("max_pool2d: stride", stride)
    return _core.max_pool2d(x, kernel, steps, pair("max_pool2d: padding", padding))


def avg_pool2d(
    x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window.

    Args:
        x: floating images (N, H, W, C).
        kernel_size: extents of the window, a number or (rows, columns).
        stride: pixels from window to window, by default the kernel size.
        padding: zeros around the image, at most half the kernel.
        count_include_pad: whether these zeros count in the divisor.

    Returns:
        Images (N, P, Q, C).

    Raises:
        ValueError: the window is larger than the padded image.

    Example:
        >>> smelt.avg_pool2d(smelt.arange(4.0).reshape(1, 2, 2, 1), 2).item()
        1.5
    """
    kernel = pair("avg_pool2d: kernel_size", kernel_size)
    steps = kernel if stride is None else pair("avg_pool2d: stride", stride)
    return _core.avg_pool2d(x, kernel, steps, pair("avg_pool2d: padding", padding), count_include_pad)


_Pairs = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def _windows(op: str, kernel_size: int, stride: int | None, padding: int) -> _Pairs:
    """Kernel, steps and padding of sequences as those of images of one row."""
    kernel = as_count(f"{op}: kernel_size", kernel_size)
    steps = kernel if stride is None else as_count(f"{op}: stride", stride)
    return (1, kernel), (1, steps), (0, as_count(f"{op}: padding", padding))


def _as_image(op: str, x: Tensor) -> Tensor:
    if x.ndim != 3:
        raise ValueError(f"{op}: input must be (N, L, C), got shape {x.shape}")
    return _core.reshape(x, [x.shape[0], 1, x.shape[1], x.shape[2]])


def _as_sequence(x: Tensor) -> Tensor:
    return _core.reshape(x, [x.shape[0], x.shape[2], x.shape[3]])


def max_pool1d(x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0) -> Tensor:
    """The largest element of each window of a sequence.

    Args:
        x: floating sequences (N, L, C).
        kernel_size: steps in a window.
        stride: steps from window to window, by default the kernel size.
        padding: steps outside the sequence that windows may reach, at most half the kernel.

    Returns:
        Sequences (N, P, C).

    Raises:
        ValueError: the window is longer than the padded sequence.

    Example:
        >>> smelt.max_pool1d(smelt.arange(4.0).reshape(1, 4, 1), 2).flatten()
        tensor([1., 3.])
    """
    kernel, steps, pads = _windows("max_pool1d", kernel_size, stride, padding)
    return _as_sequence(_core.max_pool2d(_as_image("max_pool1d", x), kernel, steps, pads))


def avg_pool1d(x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0) -> Tensor:
    """The mean of each window of a sequence, padding counted.

    Args:
        x: floating sequences (N, L, C).
        kernel_size: steps in a window.
        stride: steps from window to window, by default the kernel size.
        padding: zeros around the sequence, at most half the kernel.

    Returns:
        Sequences (N, P, C).

    Raises:
        ValueError: the window is longer than the padded sequence.

    Example:
        >>> smelt.avg_pool1d(smelt.arange(4.0).reshape(1, 4, 1), 2).flatten()
        tensor([0.5, 2.5])
    """
    kernel, steps, pads = _windows("avg_pool1d", kernel_size, stride, padding)
    return _as_sequence(_core.avg_pool2d(_as_image("avg_pool1d", x), kernel, steps, pads, True))


def adaptive_avg_pool2d(x: Tensor, output_size: Pair) -> Tensor:
    """Means over windows chosen so that the output has a given size.

    Window i of P covers rows floor(i H / P) up to ceil((i + 1) H / P).

    Args:
        x: floating images (N, H, W, C).
        output_size: extents of the output, a number or (rows, columns).

    Returns:
        Images (N, rows, columns, C).

    Raises:
        ValueError: an extent is below 1.

    Example:
        >>> smelt.adaptive_avg_pool2d(smelt.ones(1, 7, 5, 2), 3).shape
        (1, 3, 3, 2)
    """
    rows, columns = pair("adaptive_avg_pool2d: output_size", output_size)
    return _core.adaptive_pool2d(x, rows, columns, False)


def adaptive_max_pool2d(x: Tensor, output_size: Pair) -> Tensor:
    """Maxima over windows chosen so that the output has a given size, as in :func:`adaptive_avg_pool2d`.

    Args:
        x: floating images (N, H, W, C).
        output_size: extents of the output, a number or (rows, columns).

    Returns:
        Images (N, rows, columns, C).

    Raises:
        ValueError: an extent is below 1.

    Example:
        >>> smelt.adaptive_max_pool2d(smelt.ones(1, 7, 5, 2), (1, 2)).shape
        (1, 1, 2, 2)
    """
    rows, columns = pair("adaptive_max_pool2d: output_size", output_size)
    return _core.adaptive_pool2d(x, rows, columns, True)


def global_avg_pool2d(x: Tensor) -> Tensor:
    """The mean of each channel over the whole image.

    Args:
        x: floating images (N, H, W, C).

    Returns:
        Tensor (N, C).

    Raises:
        ValueError: the input does not have 4 axes.

    Example:
        >>> smelt.global_avg_pool2d(smelt.ones(2, 4, 4, 3)).shape
        (2, 3)
    """
    pooled = _core.adaptive_pool2d(x, 1, 1, False)
    return _core.reshape(pooled, [x.shape[0], x.shape[3]])


def global_max_pool2d(x: Tensor) -> Tensor:
    """The largest element of each channel over the whole image.

    Args:
        x: floating images (N, H, W, C).

    Returns:
        Tensor (N, C).

    Raises:
        ValueError: the input does not have 4 axes.

    Example:
        >>> smelt.global_max_pool2d(smelt.ones(2, 4, 4, 3)).shape
        (2, 3)
    """
    pooled = _core.adaptive_pool2d(x, 1, 1, True)
    return _core.reshape(pooled, [x.shape[0], x.shape[3]])


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    activation: str | None = None,
    max_pool: Pair | None = None,
) -> Tensor:
    """Each channel shifted and scaled to mean 0 and variance 1, then by weight and bias (Ioffe and Szegedy, 2015).

    Statistics are merged from chunks (Chan et al., 1979), so a large mean costs no accuracy.

    Args:
        x: floating tensor (..., C) with at least 2 axes.
        weight: (C,).
        bias: (C,).
        running_mean: (C,), used when not training; in training it moves towards the batch's mean by ``momentum``.
        running_var: (C,), likewise with the unbiased variance.
        training: whether statistics are those of the batch.
        momentum: weight of the batch in the running statistics.
        eps: added to the variance.
        residual: tensor of the shape of ``x`` that is added before the activation.
        activation: None or ``"relu"``.
        max_pool: a number or (rows, columns): of images (N, H, W, C), the largest pixels of windows of that size side by side
            are returned, as :func:`max_pool2d` gives them. Then the whole result is never written.

    Returns:
        Tensor of the shape of ``x``, or (N, H // rows, W // columns, C) with ``max_pool``.

    Raises:
        ValueError: channels disagree, training with one value a channel, or windows larger than the image.

    Example:
        >>> x = smelt.tensor([[1.0], [3.0]])
        >>> one, zero = smelt.ones(1), smelt.zeros(1)
        >>> smelt.batch_norm(x, one, zero, smelt.zeros(1), smelt.ones(1), training=True)
        tensor([[-1.],
                [ 1.]])
    """
    if activation not in (None, "relu"):
        raise ValueError(f"batch_norm: activation must be None or 'relu', got {activation!r}")
    windows = None if max_pool is None else pair("batch_norm: max_pool", max_pool)
    if windows is not None and min(windows) < 1:
        raise ValueError(f"batch_norm: max_pool must have at least 1 row and 1 column, got {max_pool!r}")
    return _core.batch_norm(
        x, weight, bias, running_mean, running_var, training, as_number("batch_norm: momentum", momentum),
        as_number("batch_norm: eps", eps), residual, activation, windows,
    )  # fmt: skip


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """The last axis shifted and scaled to mean 0 and variance 1, then by weight and bias (Ba et al., 2016).

    Args:
        x: floating tensor (..., D).
        weight: (D,), or None for ones.
        bias: (D,), or None for zeros.
        eps: added to the variance.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: features disagree.

    Example:
        >>> smelt.layer_norm(smelt.tensor([[1.0, 3.0]]))
        tensor([[-1.,  1.]])
    """
    return _core.layer_norm(x, weight, bias, as_number("layer_norm: eps", eps))


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Elements zeroed with probability p, the others divided by 1 - p (Srivastava et al., 2014).

    The mask is a function of the generator's seed and the element's place alone; it is drawn again for the gradient
    instead of being stored.

    Args:
        x: floating tensor of any shape.
        p: probability of a zero, in [0, 1).
        training: False returns ``x``.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: p is outside [0, 1).

    Example:
        >>> smelt.dropout(smelt.ones(4), p=0.5, training=False)
        tensor([1., 1., 1., 1.])
    """
    return _core.dropout(x, as_number("dropout: p", p)) if training and p != 0 else x


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Exponentials divided by their sum along an axis.

    Args:
        x: tensor with at least one axis; integers are computed in float32.
        axis: the axis that will sum to 1.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: the axis does not exist.

    Example:
        >>> smelt.softmax(smelt.tensor([0.0, 0.0]))
        tensor([0.5, 0.5])
    """
    return _core.softmax(x, as_axis("softmax", axis), False)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of :func:`softmax`, without overflow.

    Args:
        x: tensor with at least one axis; integers are computed in float32.
        axis: the axis whose exponentials will sum to 1.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: the axis does not exist.

    Example:
        >>> smelt.log_softmax(smelt.tensor([0.0, 0.0]))
        tensor([-0.6931, -0.6931])
    """
    return _core.softmax(x, as_axis("log_softmax", axis), True)
