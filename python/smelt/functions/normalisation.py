"""Normalisation beside batch and layer norm. Of halves, parameters are float32, and so is what is computed.

Rows are read from memory once on the CPU; on devices without these kernels other functions do the work.
"""

from __future__ import annotations

from .. import _core
from ._types import Tensor, as_count, as_number

__all__ = ["add_layer_norm", "add_rms_norm", "group_norm", "rms_norm"]


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """The last axis divided by the root of its mean square, then scaled by weight (Zhang and Sennrich, 2019).

    Args:
        x: floating tensor (..., D).
        weight: (D,), or None for ones.
        eps: added to the mean square.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: features disagree.

    Example:
        >>> smelt.rms_norm(smelt.tensor([[3.0, 4.0, 0.0, 0.0]]))
        tensor([[1.2, 1.6, 0. , 0. ]])
    """
    return _core.rms_norm(x, weight, as_number("rms_norm: eps", eps))


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Groups of channels of an image shifted and scaled to mean 0 and variance 1, then by weight and bias (Wu and He, 2018).

    With one group for each channel this is instance normalisation (Ulyanov et al., 2016).

    Args:
        x: floating tensor (N, ..., C), at least 2 axes.
        groups: how many groups of neighbouring channels; divides C.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        eps: added to the variance.

    Returns:
        Tensor of the shape of ``x``.

    Raises:
        ValueError: channels disagree, or groups do not divide them.

    Example:
        >>> smelt.group_norm(smelt.tensor([[1.0, 3.0, 10.0, 30.0]]), 2)
        tensor([[-1.,  1., -1.,  1.]])
    """
    return _core.group_norm(x, as_count("group_norm: groups", groups), weight, bias, as_number("group_norm: eps", eps))


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """x + residual and its layer norm, in one pass over memory: what a transformer needs between two blocks.

    The bits are those of ``s = x + residual`` and :func:`smelt.layer_norm` of it.

    Args:
        x: floating tensor (..., D).
        residual: the shape and dtype of ``x``.
        weight: (D,), or None for ones.
        bias: (D,), or None for zeros.
        eps: added to the variance.

    Returns:
        The sum and its norm, each of the shape of ``x``.

    Raises:
        ValueError: shapes disagree.
        TypeError: dtypes do.

    Example:
        >>> total, y = smelt.add_layer_norm(smelt.tensor([[0.0, 1.0]]), smelt.tensor([[1.0, 2.0]]))
        >>> total, y
        (tensor([[1., 3.]]), tensor([[-1.,  1.]]))
    """
    total, y = _core.add_layer_norm(x, residual, weight, bias, as_number("add_layer_norm: eps", eps))
    return total, y


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """x + residual and its RMS norm, in one pass over memory.

    The bits are those of ``s = x + residual`` and :func:`smelt.rms_norm` of it.

    Args:
        x: floating tensor (..., D).
        residual: the shape and dtype of ``x``.
        weight: (D,), or None for ones.
        eps: added to the mean square.

    Returns:
        The sum and its norm, each of the shape of ``x``.

    Raises:
        ValueError: shapes disagree.
        TypeError: dtypes do.

    Example:
        >>> total, y = smelt.add_rms_norm(smelt.tensor([[2.0, 2.0]]), smelt.tensor([[1.0, 2.0]]))
        >>> total
        tensor([[3., 4.]])
    """
    total, y = _core.add_rms_norm(x, residual, weight, as_number("add_rms_norm: eps", eps))
    return total, y
