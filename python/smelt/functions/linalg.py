"""Matrix products. float32 is added in float32, in an order that depends on the shape alone."""

from __future__ import annotations

import math

from .. import _core
from ._types import Tensor

__all__ = ["einsum", "linear", "matmul"]


def matmul(a: Tensor, b: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """Matrix product over the last two axes; the axes before them broadcast.

    Args:
        a: floating tensor (..., M, K), or (..., K, M) with ``transpose_a``; a vector (K,) stands as a row.
        b: floating tensor (..., K, N), or (..., N, K) with ``transpose_b``; a vector (K,) stands as a column.
        transpose_a: take a's last two axes exchanged, without a copy.
        transpose_b: likewise for b.

    Returns:
        Tensor (..., M, N), without the axis that a vector brought.

    Raises:
        ValueError: the inner extents differ, or the axes before do not broadcast.
        TypeError: the operands are not floating.

    Example:
        >>> smelt.matmul(smelt.tensor([[1.0, 2.0]]), smelt.tensor([[3.0], [4.0]]))
        tensor([[11.]])
    """
    return _core.matmul(a, b, transpose_a, transpose_b)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """x times the transposed weight, plus bias, through an activation: one kernel.

    Args:
        x: floating tensor (..., in_features).
        weight: tensor (out_features, in_features) of the same dtype.
        bias: tensor (out_features,), or None.
        activation: None, ``"relu"``, ``"tanh"``, ``"sigmoid"``, ``"gelu"``, ``"gelu_tanh"`` or ``"silu"``.

    Returns:
        Tensor (..., out_features).

    Raises:
        ValueError: the features disagree.
        TypeError: the dtypes disagree.

    Example:
        >>> smelt.linear(smelt.ones(1, 2), smelt.tensor([[1.0, 2.0]]), smelt.tensor([0.5]))
        tensor([[3.5]])
    """
    return _core.linear(x, weight, bias, activation)


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Products and sums over named axes (Einstein's convention), as in NumPy; a chain of matrix products.

    Args:
        equation: such as ``"bij,bjk->bik"``; ``...`` stands for axes that broadcast. Without ``->`` the result has the
            names that occur once, in alphabetical order.
        operands: one tensor for each group of names.

    Returns:
        Tensor with the axes named after ``->``.

    Raises:
        ValueError: names and shapes disagree.

    Example:
        >>> smelt.einsum("ij,ij->i", smelt.ones(2, 3), smelt.ones(2, 3))
        tensor([3., 3.])
    """
    terms, result = _parse(equation, operands)
    extents: dict[str, int] = {}
    for term, x in zip(terms, operands):
        for name, n in zip(term, x.shape):
            if extents.setdefault(name, n) != n and 1 not in (n, extents[name]):
                raise ValueError(f"einsum: axis '{name}' must have one extent, got {extents[name]} and {n}")
            extents[name] = max(extents[name], n)
    current, names = _one_term(operands[0], terms[0])
    for i in range(1, len(operands)):
        other, other_names = _one_term(operands[i], terms[i])
        needed = set(result).union(*terms[i + 1 :])
        current, names = _contract(current, names, other, other_names, needed)
    extra = [names.index(n) for n in names if n not in result]
    if extra:
        current = _core.sum(current, extra, False)
        names = "".join(n for n in names if n in result)
    current = _core.permute(current, [names.index(n) for n in result])
    return _core.expand(current, [extents[n] for n in result])


def _parse(equation: str, operands: tuple[Tensor, ...]) -> tuple[list[str], str]:
    equation = equation.replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands) or not operands:
        raise ValueError(f"einsum: '{equation}' names {len(terms)} operands, got {len(operands)}")
    # ... becomes names of its own, aligned at the right.
    widest = max((x.ndim - len(t.replace("...", "")) for t, x in zip(terms, operands) if "..." in t), default=0)
    fresh = "".join(c for c in map(chr, range(0x3B1, 0x3C9)))[: max(widest, 0)]
    for i, (term, x) in enumerate(zip(terms, operands)):
        if "..." in term:
            count = x.ndim - len(term.replace("...", ""))
            term = term.replace("...", fresh[len(fresh) - count :] if count > 0 else "")
            terms[i] = term
        if len(term) != x.ndim or not all(c.isalpha() for c in term):
            raise ValueError(f"einsum: '{equation}' names {len(term)} axes for an operand of shape {x.shape}")
    if not arrow:
        once = sorted(c for c in set("".join(terms)) if "".join(terms).count(c) == 1 and c not in fresh)
        result = fresh + "".join(once)
    result = result.replace("...", fresh)
    if len(set(result)) != len(result) or not set(result) <= set("".join(terms)):
        raise ValueError(f"einsum: the result of '{equation}' must name axes of the operands, each once")
    return terms, result


def _one_term(x: Tensor, term: str) -> tuple[Tensor, str]:
    """Takes the diagonal of axes with one name."""
    for name in dict.fromkeys(term):
        while term.count(name) > 1:
            first = term.index(name)
            second = term.index(name, first + 1)
            n = x.shape[first]
            if x.shape[second] != n:
                raise ValueError(f"einsum: axis '{name}' must have one extent, got {n} and {x.shape[second]}")
            order = [i for i in range(x.ndim) if i not in (first, second)]
            moved = _core.permute(x, [*order, first, second])
            rows = math.prod(moved.shape[:-2])
            flat = _core.reshape(moved, [rows, n * n])
            picked = _core.take(flat, _core.arange(0, n + 1, n, "int64", x.device), 1)
            x = _core.reshape(picked, [*moved.shape[:-2], n])
            term = "".join(term[i] for i in order) + name
    return x, term


def _contract(a: Tensor, names_a: str, b: Tensor, names_b: str, needed: set[str]) -> tuple[Tensor, str]:
    """The product of two operands, summed over the names that nobody needs any more."""
    for x_names in (names_a, names_b):
        other = names_b if x_names is names_a else names_a
        alone = [i for i, n in enumerate(x_names) if n not in other and n not in needed]
        if alone:
            kept = "".join(n for i, n in enumerate(x_names) if i not in alone)
            if x_names is names_a:
                a, names_a = _core.sum(a, alone, False), kept
            else:
                b, names_b = _core.sum(b, alone, False), kept
    both = [n for n in names_a if n in names_b]
    extent = {n: max(a.shape[names_a.index(n)], b.shape[names_b.index(n)]) for n in both}
    batch = [n for n in both if n in needed]
    inner = [n for n in both if n not in needed]
    only_a = [n for n in names_a if n not in names_b]
    only_b = [n for n in names_b if n not in names_a]

    def matrix(x: Tensor, names: str, groups: tuple[list[str], list[str], list[str]]) -> Tensor:
        x = _core.permute(x, [names.index(n) for group in groups for n in group])
        x = _core.expand(x, [extent.get(n, x.shape[i]) for i, n in enumerate(n for g in groups for n in g)])
        sizes, at = [], 0
        for group in groups:
            sizes.append(math.prod(x.shape[at : at + len(group)]))
            at += len(group)
        return _core.reshape(x, sizes)

    left = matrix(a, names_a, (batch, only_a, inner))
    right = matrix(b, names_b, (batch, inner, only_b))
    shape = [
        *(extent[n] for n in batch),
        *(a.shape[names_a.index(n)] for n in only_a),
        *(b.shape[names_b.index(n)] for n in only_b),
    ]
    product = _core.reshape(_core.matmul(left, right, False, False), shape)
    return product, "".join(batch + only_a + only_b)
