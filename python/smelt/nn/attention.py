"""Attention as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functions
from .._core import Tensor
from ._checks import positive
from .layers import Linear
from .module import Module, stated

__all__ = ["MultiHeadAttention"]


class MultiHeadAttention(Module):
    """Attention of sequences (B, T, width) to themselves: one projection to queries, keys and values of all heads, attention
    in place (:func:`smelt.attention_packed`), one projection back.

    Args:
        width: features of a step, a multiple of `heads`.
        heads: of the queries.
        kv_heads: heads of keys and values, which divide `heads`; None: as many.
        causal: whether a step sees none behind it.
        bias: whether the projections have one.

    Attributes:
        qkv: the projection to (heads + 2 kv_heads) width / heads features: queries, keys, values.
        out: the projection back.

    Source:
        Vaswani et al., 2017; shared heads: Ainslie et al., 2023.

    Example:
        >>> nn.MultiHeadAttention(64, 4, causal=True)(smelt.ones(2, 10, 64)).shape
        (2, 10, 64)
    """

    def __init__(self, width: int, heads: int, kv_heads: int | None = None, causal: bool = False, bias: bool = True):
        super().__init__()
        shared = heads if kv_heads is None else kv_heads
        positive("MultiHeadAttention", width=width, heads=heads, kv_heads=shared)
        if width % heads:
            raise ValueError(f"MultiHeadAttention: heads must divide the width of {width}, got {heads}")
        if heads % shared:
            raise ValueError(f"MultiHeadAttention: kv_heads must divide the {heads} heads, got {shared}")
        self.width, self.heads, self.kv_heads, self.causal = width, heads, shared, bool(causal)
        self.qkv = Linear(width, (heads + 2 * shared) * (width // heads), bias)
        self.out = Linear(width, width, bias)

    def forward(
        self, x: Tensor, *others: Any, mask: Tensor | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """Attends.

        Args:
            x: floating (B, T, width).
            others: none; keys and values of other sequences are for :func:`smelt.attention`.
            mask: broadcastable to (B, heads, T, T): queries, then keys. bool, true where a key is seen, or floating, added
                to the scores. Padding of keys, (B, T) and true where a step is there, is ``mask[:, None, None, :]``.
            lengths: (B,) whole numbers from 0 to T: of each sequence only so many keys are there; an array where steps are
                recorded.

        Returns:
            Tensor (B, T, width).

        Example:
            >>> layer = nn.MultiHeadAttention(16, 2)
            >>> there = smelt.tensor([[True, True, True], [True, False, False]])
            >>> layer(smelt.ones(2, 3, 16), mask=there[:, None, None, :]).shape
            (2, 3, 16)
            >>> layer(smelt.ones(2, 3, 16), lengths=[3, 1]).shape
            (2, 3, 16)
        """
        if others:
            raise TypeError(
                f"MultiHeadAttention: it takes one sequence, which attends to itself, got {1 + len(others)}; mask and "
                "lengths are given by name, and smelt.attention takes keys and values of other sequences"
            )
        y = functions.attention_packed(
            self.qkv(x), self.heads, self.kv_heads, causal=self.causal, mask=mask, lengths=lengths
        )
        return self.out(y)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        shared = f", kv_heads={self.kv_heads}" if self.kv_heads != self.heads else ""
        bias = "" if self.qkv.bias is not None else ", bias=False"
        return f"{self.width}, {self.heads}{shared}{stated(self, causal=False)}{bias}"
