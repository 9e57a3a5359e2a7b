"""What ``smelt bench`` measures: each case is one piece of work, done by smelt and by its peers on the same random data."""

from . import _attention, _conv, _gemm, _memory, _norm, _optim, _step
from ._case import Case, Contender, Suite, peers

__all__ = ["SUITES", "Case", "Contender", "Suite", "peers"]

SUITES = {
    "gemm": _gemm.SUITE,
    "conv": _conv.SUITE,
    "attention": _attention.SUITE,
    "optim": _optim.SUITE,
    "norm": _norm.SUITE,
    "memory": _memory.SUITE,
    "step": _step.SUITE,
}
