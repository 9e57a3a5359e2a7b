"""Attention: one kernel forward, one backward."""

from __future__ import annotations

import math
from typing import Any

from ._call import Call
from ._call import strides as _strides

__all__ = ["attention", "attention_backward"]

_ROWS = ("B Tq H D", "B Tk Hkv D", "B Tk Hkv Dv", "B Tq H Dv")


def _steps(heads: int, time: int, features: int) -> list[int]:
    """Elements from one batch, head and row to the next of (B, T, H, D)."""
    return [time * heads * features, features, heads * features]


def _options(c: Call, causal: bool, mask: Any, lengths: Any, scale: float | None) -> dict[str, Any]:
    """What forward and backward share; the operands are bound."""
    s = c.size
    if s["H"] % s["Hkv"] if s["Hkv"] else s["H"]:
        raise c.error(f"heads of k must divide those of q, got {s['Hkv']} and {s['H']}")
    factor = 1 / math.sqrt(max(s["D"], 1)) if scale is None else float(scale)
    if not math.isfinite(factor):
        raise c.error(f"scale must be finite, got {factor}")
    mask_stride = [0, 0, 0, 0]
    if mask is not None:
        shape = tuple(mask.shape)
        wanted = (s["B"], s["H"], s["Tq"], s["Tk"])
        if len(shape) != 4 or any(n not in (1, full) for n, full in zip(shape, wanted)):
            raise c.error(f"mask must be (B, H, Tq, Tk) = {wanted}, or 1 in place of any, got {shape}")
        c.input("mask", mask, "mask0 mask1 mask2 mask3", ("bool", "float32", "float64", "bfloat16", "float16"))
        mask_stride = [0 if n == 1 else step for n, step in zip(shape, _strides(shape))]
    c.optional("lengths", lengths, "B", "int64")
    c.check_index("lengths", 0, s["Tk"] + 1)
    extents = {"batch": "B", "heads": "H", "kv_heads": "Hkv", "tq": "Tq", "tk": "Tk", "d": "D", "dv": "Dv"}
    return {
        "shape": {field: s[letter] for field, letter in extents.items()},
        "q_stride": _steps(s["H"], s["Tq"], s["D"]),
        "k_stride": _steps(s["Hkv"], s["Tk"], s["D"]),
        "v_stride": _steps(s["Hkv"], s["Tk"], s["Dv"]),
        "y_stride": _steps(s["H"], s["Tq"], s["Dv"]),
        "mask_stride": mask_stride,
        "mask_dtype": "bool" if mask is None else c.fields["mask"].dtype.name,
        "scale": factor,
        "causal": bool(causal),
        "dtype": c.dtype,
    }


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    causal: bool = False,
    mask: Any = None,
    lengths: Any = None,
    scale: float | None = None,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """y = softmax(scale q k^T + mask) v of each head; zeros where a query sees no key.

    Args:
        q: (B, Tq, H, D), floating.
        k: (B, Tk, Hkv, D); Hkv divides H.
        v: (B, Tk, Hkv, Dv).
        causal: query i sees the keys j <= i + Tk - Tq.
        mask: (B, H, Tq, Tk) with 1 in place of any; bool, true where a key is seen, or floating, added; or None.
        lengths: (B) int64, keys that are there; or None.
        scale: of the scores; None is 1 / sqrt(D).
        out: (B, Tq, H, Dv) to write y to, or None.
        impl: a candidate.

    Returns:
        y; the logarithm of the sum of exp(score) of each query, (B, H, Tq), infinity where no key is seen.

    Raises:
        ValueError: shapes that do not fit.
        IndexError: a length below 0 or above Tk.

    Example:
        >>> x = np.ones((1, 3, 2, 4), "float32")
        >>> y, lse = kernels.attention(x, x, x, causal=True)
        >>> y.shape, lse.shape
        ((1, 3, 2, 4), (1, 2, 3))
    """
    c = Call("attention", impl)
    for name, array, shape in zip("qkv", (q, k, v), _ROWS):
        c.input(name, array, shape)
    options = _options(c, causal, mask, lengths, scale)
    c.output("y", out, _ROWS[3])
    c.output("lse", None, "B H Tq", c.statistics)
    return c.run(**options)


def attention_backward(
    q: Any,
    k: Any,
    v: Any,
    y: Any,
    lse: Any,
    dy: Any,
    *,
    causal: bool = False,
    mask: Any = None,
    lengths: Any = None,
    scale: float | None = None,
    accumulate: bool = False,
    out: Any = None,
    impl: str | None = None,
) -> Any:
    """The gradients of attention; probabilities are computed again.

    Args:
        q, k, v: as in the forward.
        y, lse: the forward's results.
        dy: (B, Tq, H, Dv).
        causal, mask, lengths, scale: as in the forward.
        accumulate: adds to what `out` holds.
        out: dq, dk and dv to write to, as q, k and v, also in float32 where these are halves; or None.
        impl: a candidate.

    Returns:
        dq, dk, dv.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> x = np.ones((1, 3, 2, 4), "float32")
        >>> y, lse = kernels.attention(x, x, x)
        >>> dq, dk, dv = kernels.attention_backward(x, x, x, y, lse, np.ones_like(y))
        >>> dv.sum().round(3)
        np.float32(24.0)
    """
    c = Call("attention_backward", impl)
    for name, array, shape in zip("qkv", (q, k, v), _ROWS):
        c.input(name, array, shape)
    options = _options(c, causal, mask, lengths, scale)
    c.input("y", y, _ROWS[3])
    c.input("dy", dy, _ROWS[3])
    c.input("lse", lse, "B H Tq", c.statistics)
    given = (None,) * 3 if out is None else tuple(out)
    if len(given) != 3:
        raise c.error(f"out must be dq, dk and dv, got {len(given)} arrays")
    dtype = c.sums("dq", given[0])
    for name, array, shape in zip("qkv", given, _ROWS):
        c.output(f"d{name}", array, shape, dtype, accumulate=accumulate, flag=f"accumulate_{name}")
    same = {f"d{name}_stride": options[f"{name}_stride"] for name in "qkvy"}
    return c.run(grad_dtype=dtype, **options, **same)
