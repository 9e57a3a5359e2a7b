"""Attention over sequences (B, T, H, D)."""

from __future__ import annotations

from collections.abc import Sequence

from .. import _core
from ._types import Tensor, as_count, as_number
from .create import tensor

__all__ = ["attention", "attention_packed"]


def _lengths(op: str, lengths: Tensor | Sequence[int] | None, like: Tensor) -> Tensor | None:
    if lengths is None:
        return None
    if not isinstance(lengths, Tensor):
        lengths = tensor(lengths, device=like.device)
    whole = not lengths.dtype.is_floating and lengths.dtype not in ("bool", "int64")
    return lengths.astype("int64") if whole else lengths


def _mask(mask: Tensor | None, like: Tensor) -> Tensor | None:
    return mask if mask is None or isinstance(mask, Tensor) else tensor(mask, device=like.device)


def _scale(op: str, scale: float | None) -> float | None:
    return None if scale is None else as_number(f"{op}: scale", scale)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    mask: Tensor | None = None,
    scale: float | None = None,
    lengths: Tensor | Sequence[int] | None = None,
) -> Tensor:
    """softmax(scale q k^T + mask) v for each head, without the matrix of scores in memory.

    A query that sees no key gives zeros and takes no gradient. Sequences stand before heads, as a projection leaves them;
    where PyTorch's ``scaled_dot_product_attention`` takes (B, H, T, D), this is its ``q.transpose(1, 2)``. Computes in
    float32 (in float64 for float64); the memory beside operands and result grows with the length, not with its square.
    Under autocast the operands are taken in the low dtype.

    Args:
        q: floating queries (B, Tq, H, D).
        k: keys (B, Tk, Hkv, D) of the same dtype; Hkv divides H, and H / Hkv neighbouring heads of queries share one of keys.
        v: values (B, Tk, Hkv, Dv).
        causal: query i sees the keys j <= i + Tk - Tq: the last query sees the last key.
        mask: broadcastable to (B, H, Tq, Tk); bool, true where a key is seen, or floating, added to the scores.
        scale: factor of the scores; None is 1 / sqrt(D).
        lengths: (B,) whole numbers from 0 to Tk: of each sequence only so many keys are there. What lies behind them is not
            read. A step that makes them from a list is not recorded; give one an integer array among its arguments.

    Returns:
        Tensor (B, Tq, H, Dv).

    Raises:
        ValueError: shapes that do not fit, heads that Hkv does not divide, a scale that is not finite.
        TypeError: the dtypes of q, k and v differ, or mask or lengths have another than above.
        IndexError: a length below 0 or above Tk.

    Source:
        Vaswani et al., 2017; computed in blocks after Dao et al., 2022; shared heads of keys: Ainslie et al., 2023.

    Example:
        >>> q, k, v = smelt.ones(2, 5, 4, 8), smelt.ones(2, 7, 2, 8), smelt.ones(2, 7, 2, 8)
        >>> smelt.attention(q, k, v, causal=True, lengths=[7, 3]).shape
        (2, 5, 4, 8)
    """
    return _core.attention(
        q, k, v, _mask(mask, q), _lengths("attention", lengths, q), causal, _scale("attention", scale)
    )


def attention_packed(
    qkv: Tensor,
    heads: int,
    kv_heads: int | None = None,
    causal: bool = False,
    mask: Tensor | None = None,
    scale: float | None = None,
    lengths: Tensor | Sequence[int] | None = None,
) -> Tensor:
    """:func:`attention` of a sequence to itself, on the output of one projection to queries, keys and values: no copies.

    Args:
        qkv: floating (B, T, (H + 2 Hkv) D): in each row the queries of all heads, then the keys, then the values.
        heads: H.
        kv_heads: Hkv, which divides `heads`; None: as many.
        causal: a query sees the keys up to its own place.
        mask, scale, lengths: as in :func:`attention`.

    Returns:
        Tensor (B, T, H D). The gradient of `qkv` is written as one tensor.

    Raises:
        ValueError: features that are not a multiple of H + 2 Hkv, else as :func:`attention`.

    Example:
        >>> smelt.attention_packed(smelt.ones(2, 6, 3 * 32), heads=4, causal=True).shape
        (2, 6, 32)
    """
    op = "attention_packed"
    heads = as_count(f"{op}: heads", heads)
    groups = heads if kv_heads is None else as_count(f"{op}: kv_heads", kv_heads)
    return _core.attention_packed(
        qkv, heads, groups, _mask(mask, qkv), _lengths(op, lengths, qkv), causal, _scale(op, scale)
    )
