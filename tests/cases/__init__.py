"""Case records: one for each thing an op can be asked to do.

A record has the op, its definition in NumPy float64 (tests/reference), inputs from a seed and an error bound. From it come
the value tests at every instruction set and dtype, the gradient tests, and rows of the benchmarks.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Half the distance from 1 to the next number: the largest relative error of one rounding.
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
# What an op computes in, by the dtype of its tensors.
COMPUTE = {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"}
# Half of the smallest subnormal number (float64: all of it): the largest error of one rounding near 0.
LEAST = {"float64": 2.0**-1074, "float32": 2.0**-150, "float16": 2.0**-25, "bfloat16": 2.0**-134}
# From here on values round to infinity.
OVERFLOW = {
    "float64": np.inf,
    "float32": (2 - 2.0**-24) * 2.0**127,
    "float16": (2 - 2.0**-11) * 2.0**15,
    "bfloat16": (2 - 2.0**-8) * 2.0**127,
}
FLOATING = ("float32", "float64", "bfloat16", "float16")
# Lengths around the vectors of 4, 8 and 16 lanes.
TAILS = (0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 1000)


@dataclass(frozen=True)
class Case:
    """One way to call an op.

    Attributes:
        name: unique, ``<op>[<what>]``.
        op: takes tensors, gives one or a tuple of them.
        reference: the same of float64 arrays.
        inputs: makes the float64 (or integer, or bool) arrays from a generator.
        grad: positions of the inputs that a gradient is checked for.
        dtypes: dtypes of the floating inputs.
        bound: from the float64 inputs and result and the unit of the computing dtype, the largest error allowed before
            the result is rounded to the tensor's dtype; a number or an array.
        between: of the float64 inputs: what a half type rounds once more on the way, to errors that the result keeps.
        result: dtype of floating results where it is not that of the inputs. Other results have the reference's dtype.
        flops, nbytes: of one call in float32, for benchmarks.
    """

    name: str
    op: Callable[..., Any]
    reference: Callable[..., Any]
    inputs: Callable[[np.random.Generator], list[Any]]
    bound: Callable[..., Any]
    grad: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ("float32", "float64")
    between: Callable[..., Any] | None = None
    result: str = ""
    flops: float = 0.0
    nbytes: float = 0.0
    tags: tuple[str, ...] = field(default=())


def relative(units: float, floor: float = 0.0) -> Callable[..., Any]:
    """A bound of some units of the result, plus an absolute part for results near 0 in terms of the inputs' scale."""
    return lambda inputs, result, u: units * u * (np.abs(result) + floor)


def exact(inputs: Any, result: Any, u: float) -> float:
    """No error at all: the op only moves or selects values."""
    return 0.0


def spaced(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """All elements different by at least 0.01, so that small steps change no maximum."""
    n = int(np.prod(shape))
    return (rng.permutation(n) - n / 2).reshape(shape) * 0.01


def ulp(x: Any, u: float) -> Any:
    """The distance from |x| to the next number of a type with unit u (float32, float64), subnormals included."""
    with np.errstate(under="ignore"):
        spacing = np.ldexp(u, np.frexp(np.where(np.isfinite(x), x, 0))[1])
    return np.maximum(np.where(x == 0, 0, spacing), 2.0**-149 if u == UNIT["float32"] else 2.0**-1074)


def ulps(count: float, flushed: float = 0.0) -> Callable[..., Any]:
    """A bound in units in the last place, plus an absolute part in float32 for results that are flushed to 0.

    The float64 reference is computed with the same formula: its own error counts once more.
    """
    return lambda inputs, result, u: count * ulp(result, u) * (1 if u > 2.0**-53 else 2) + flushed * (u > 2.0**-53)


def all_cases() -> list[Case]:
    """Every case of every module in this package."""
    cases: list[Case] = []
    for module in pkgutil.iter_modules(__path__):
        cases += importlib.import_module(f"{__name__}.{module.name}").CASES
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "case names must be unique"
    return cases
