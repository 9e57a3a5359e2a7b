"""Windows of images: pairs of numbers, and the arguments of pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._call import Call

Pair = int | Sequence[int]


def pair(slot: str, name: str, value: Pair) -> list[int]:
    whole = isinstance(value, int) or (isinstance(value, (tuple, list)) and all(isinstance(v, int) for v in value))
    both = [value, value] if isinstance(value, int) else list(value) if whole else []
    if len(both) != 2 or min(both) < (0 if name == "padding" else 1):
        least = 0 if name == "padding" else 1
        raise ValueError(f"{slot}: {name} must be an integer of at least {least} or two of them, got {value!r}")
    return both


def pool_shape(c: Call, kernel: Pair, stride: Pair | None, padding: Pair) -> dict[str, Any]:
    """The arguments of pooling; binds P and Q."""
    s = c.size
    kernels = pair(c.slot, "kernel", kernel)
    steps = kernels if stride is None else pair(c.slot, "stride", stride)
    pads = pair(c.slot, "padding", padding)
    for i, (out, letter) in enumerate((("P", "H"), ("Q", "W"))):
        if 2 * pads[i] > kernels[i]:
            raise c.error(f"padding must be at most half of the kernel's {kernels[i]}, got {pads[i]}")
        extent = (s[letter] + 2 * pads[i] - kernels[i]) // steps[i] + 1
        if extent < 1:
            raise c.error(f"kernel must fit the padded input of {s[letter] + 2 * pads[i]}, got {kernels[i]}")
        if s.setdefault(out, extent) != extent:
            raise c.error(f"dy must have {out} = {extent}, got {s[out]}")
    extents = {letter.lower(): s[letter] for letter in "NHWCPQ"}
    return {**extents, "kernel": kernels, "stride": steps, "pad": pads, "adaptive": False}


def window_pixels(shape: dict[str, Any]) -> tuple[int, str]:
    """The most pixels of a window within the image, and the dtype of a place among them."""
    most = min(shape["kernel"][0], shape["h"]) * min(shape["kernel"][1], shape["w"])
    return most, "uint8" if most <= 256 else "int32"
