"""Checks that layers make of their sizes when they are built."""

from __future__ import annotations

from typing import Any

from ..functions._types import is_finite_number, pair

_ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu")


def positive(layer: str, **sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{layer}: {name} must be a whole number of at least 1, got {value!r}")


def sizes(layer: str, name: str, value: Any, low: int = 1, one: bool = False) -> None:
    """A number, or a pair unless ``one``, of whole numbers of at least ``low``."""
    numbers = value if isinstance(value, (tuple, list)) and len(value) == 2 and not one else [value]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= low for n in numbers):
        kind = "a whole number" if one else "a whole number or a pair of them,"
        raise ValueError(f"{layer}: {name} must be {kind} of at least {low}, got {value!r}")


def windows(layer: str, stride: Any, padding: Any, dilation: Any, one: bool) -> None:
    sizes(layer, "stride", stride, one=one)
    sizes(layer, "dilation", dilation, one=one)
    if not isinstance(padding, str):
        sizes(layer, "padding", padding, 0, one)
    elif padding not in ("same", "valid"):
        raise ValueError(f"{layer}: padding must be a number, 'same' or 'valid', got {padding!r}")


def transposed_windows(layer: str, stride: Any, padding: Any, output_padding: Any, dilation: Any, one: bool) -> None:
    sizes(layer, "stride", stride, one=one)
    sizes(layer, "dilation", dilation, one=one)
    sizes(layer, "padding", padding, 0, one)
    sizes(layer, "output_padding", output_padding, 0, one)
    for extra, step, gap in zip(*(pair(layer, n) for n in (output_padding, stride, dilation)), strict=True):
        if extra >= max(step, gap):
            raise ValueError(f"{layer}: output_padding must be below stride or dilation, {max(step, gap)}, got {extra}")


def grouped(layer: str, in_channels: int, out_channels: int, groups: int) -> None:
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"{layer}: groups must divide {in_channels} and {out_channels} channels, got {groups}")


def known(layer: str, activation: Any, names: tuple[str, ...] = _ACTIVATIONS) -> None:
    if activation is not None and activation not in names:
        raise ValueError(f"{layer}: activation must be None or one of {', '.join(names)}, got {activation!r}")


def epsilon(layer: str, eps: Any) -> None:
    if not is_finite_number(eps) or eps <= 0:
        raise ValueError(f"{layer}: eps must be a finite number above 0, got {eps!r}")
