"""Random tensors from one generator, Philox4x32-10 (Salmon et al., 2011).

Every call takes the next numbers of the stream, whatever the number of threads; the same seed gives the same numbers on
every machine and device.
"""

from __future__ import annotations

from typing import Any

from .. import _core
from ._types import DTypeLike, Tensor, as_shape, as_whole

__all__ = [
    "get_rng_state",
    "manual_seed",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
    "set_rng_state",
]


def manual_seed(seed: int) -> None:
    """Starts the stream of random numbers anew.

    Args:
        seed: from 0 to 2^64 - 1.

    Raises:
        TypeError: the seed is not a whole number.
        ValueError: it is outside.

    Example:
        >>> smelt.manual_seed(0)
        >>> a = smelt.rand(3)
        >>> smelt.manual_seed(0)
        >>> bool((a == smelt.rand(3)).all())
        True
    """
    seed = as_whole("manual_seed: the seed", seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"manual_seed: the seed must be from 0 to 2**64 - 1, got {seed}")
    _core.manual_seed(seed)


def get_rng_state() -> dict[str, int]:
    """Where the stream of random numbers stands.

    Returns:
        ``{"seed": ..., "offset": ...}`` for :func:`set_rng_state`.

    Example:
        >>> smelt.manual_seed(3)
        >>> smelt.get_rng_state()
        {'seed': 3, 'offset': 0}
    """
    seed, offset = _core.generator_state()
    return {"seed": seed, "offset": offset}


def set_rng_state(state: dict[str, int]) -> None:
    """Goes on from a place of the stream of random numbers.

    Args:
        state: from :func:`get_rng_state`.

    Raises:
        ValueError: it is not such a state.

    Example:
        >>> state = smelt.get_rng_state()
        >>> a = smelt.rand(2)
        >>> smelt.set_rng_state(state)
        >>> bool((a == smelt.rand(2)).all())
        True
    """
    if not isinstance(state, dict) or not {"seed", "offset"} <= set(state):
        raise ValueError(f"set_rng_state: needs a dict with 'seed' and 'offset', got {state!r}")
    for key in ("seed", "offset"):
        if not 0 <= as_whole(f"set_rng_state: {key}", state[key]) < 2**64:
            raise ValueError(f"set_rng_state: {key} must be from 0 to 2**64 - 1, got {state[key]}")
    _core.set_generator_state(state["seed"], state["offset"])


def rand(*shape: Any, dtype: DTypeLike = "float32", device: str = "cpu") -> Tensor:
    """Uniform random numbers in [0, 1), multiples of 2^-24 (bfloat16: 2^-8, float16: 2^-11).

    Args:
        shape: extents, as several arguments or one sequence.
        dtype: a floating dtype.
        device: where the tensor lies.

    Returns:
        Tensor of ``shape``.

    Example:
        >>> smelt.manual_seed(0)
        >>> smelt.rand(2, 3).shape
        (2, 3)
    """
    return _core.random_uniform(as_shape(shape), 0.0, 1.0, dtype, device)


def randn(*shape: Any, dtype: DTypeLike = "float32", device: str = "cpu") -> Tensor:
    """Normal random numbers with mean 0 and variance 1 (Box and Muller, 1958).

    Args:
        shape: extents, as several arguments or one sequence.
        dtype: a floating dtype.
        device: where the tensor lies.

    Returns:
        Tensor of ``shape``.

    Example:
        >>> smelt.manual_seed(0)
        >>> smelt.randn(2, 3).shape
        (2, 3)
    """
    return _core.random_normal(as_shape(shape), 0.0, 1.0, dtype, device)


def randint(low: int, high: int, shape: Any, device: str = "cpu") -> Tensor:
    """Uniform random integers in [low, high).

    Args:
        low: the smallest.
        high: the end, not contained.
        shape: extents, a number or a sequence.
        device: where the tensor lies.

    Returns:
        int64 tensor of ``shape``.

    Raises:
        ValueError: ``high`` is not above ``low``.

    Example:
        >>> smelt.manual_seed(0)
        >>> x = smelt.randint(0, 10, (100,))
        >>> int(x.min()) >= 0 and int(x.max()) < 10
        True
    """
    low, high = as_whole("randint: low", low), as_whole("randint: high", high)
    if high <= low:
        raise ValueError(f"randint: high must be above low, got {low} and {high}")
    return _core.random_integers(as_shape((shape,)), low, high, device)


def randperm(n: int, device: str = "cpu") -> Tensor:
    """The numbers from 0 to n - 1 in random order.

    Args:
        n: how many.
        device: where the tensor lies.

    Returns:
        int64 tensor (n,).

    Raises:
        ValueError: ``n`` is negative.

    Example:
        >>> smelt.manual_seed(0)
        >>> smelt.sort(smelt.randperm(4))
        tensor([0, 1, 2, 3])
    """
    n = as_whole("randperm: n", n)
    if n < 0:
        raise ValueError(f"randperm: n must not be negative, got {n}")
    high, low = _core.random_bits([n]), _core.random_bits([n])
    # 63 random bits a place: ties are as good as impossible.
    return _core.to_device(_core.sort((high // 2) * 2**32 + low, False)[1], device)


def rand_like(x: Tensor) -> Tensor:
    """Uniform random numbers in [0, 1) with the shape, dtype and device of ``x``.

    Args:
        x: the model, floating.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.rand_like(smelt.zeros(3)).shape
        (3,)
    """
    return _core.random_uniform(list(x.shape), 0.0, 1.0, x.dtype, x.device)


def randn_like(x: Tensor) -> Tensor:
    """Normal random numbers with the shape, dtype and device of ``x``.

    Args:
        x: the model, floating.

    Returns:
        Tensor of the shape of ``x``.

    Example:
        >>> smelt.randn_like(smelt.zeros(3)).shape
        (3,)
    """
    return _core.random_normal(list(x.shape), 0.0, 1.0, x.dtype, x.device)
