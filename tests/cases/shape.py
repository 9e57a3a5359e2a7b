"""Views, rearrangements, joining, cutting, padding, slicing and conversion, in every dtype."""

import numpy as np

import smelt
from tests.cases import UNIT, Case, exact
from tests.reference import shape as reference

FLOATS = ("float32", "float64", "bfloat16", "float16")
KINDS = ("float", "int64", "int32", "uint8", "bool")


def _values(rng, shape, kind):
    if kind == "float":
        return rng.normal(size=shape)
    return rng.random(shape) < 0.5 if kind == "bool" else rng.integers(0, 100, size=shape).astype(kind)


def _case(name, op, ref, *shapes, kind="float"):
    return Case(
        name=name.replace(" ", "") if kind == "float" else f"{name[:-1]},{kind}]".replace(" ", ""),
        op=op,
        reference=ref,
        inputs=lambda rng: [_values(rng, shape, kind) for shape in shapes],
        bound=exact,
        grad=tuple(range(len(shapes))) if kind == "float" else (),
        dtypes=FLOATS,
    )


def _reshape(shape, to):
    return _case(f"reshape[{shape},{to}]", lambda x: x.reshape(*to), lambda x: x.reshape(to), shape)


def _permute(shape, axes, kind="float"):
    return _case(
        f"permute[{shape},{axes}]", lambda x: smelt.permute(x, *axes), lambda x: reference.permute(x, axes), shape, kind=kind
    )  # fmt: skip


def _lazy(shape, use):
    """The mark of .T is carried out by whatever is not a product; twice .T is nothing."""
    ops = {
        "add": (lambda x: x.T + x.T, lambda x: 2 * x.T),
        "reshape": (lambda x: x.T.reshape(-1), lambda x: x.T.reshape(-1)),
        "slice": (lambda x: x.T[1:, ::2], lambda x: x.T[1:, ::2]),
        "twice": (lambda x: x.T.T, lambda x: x),
        "concat": (lambda x: smelt.concat([x.T, x.T], 1), lambda x: np.concatenate([x.T, x.T], 1)),
    }
    return _case(f"permute[lazy_{use}_{shape}]", *ops[use], shape)


def _concat(shapes, axis, kind="float"):
    return _case(
        f"concat[{shapes},{axis}]", lambda *x: smelt.concat(x, axis), lambda *x: np.concatenate(x, axis), *shapes, kind=kind
    )  # fmt: skip


def _stack(shape, count, axis):
    return _case(
        f"stack[{shape},{count},{axis}]", lambda *x: smelt.stack(x, axis), lambda *x: np.stack(x, axis), *[shape] * count
    )  # fmt: skip


def _split(shape, sizes, axis):
    def ref(x):
        n = x.shape[axis]
        cuts = range(sizes, n, sizes) if isinstance(sizes, int) else np.cumsum(sizes)[:-1]
        return tuple(np.split(x, cuts, axis))

    return _case(f"split[{shape},{sizes},{axis}]", lambda x: tuple(smelt.split(x, sizes, axis)), ref, shape)


def _pad(shape, widths, value=0.0, kind="float"):
    pairs = [(w, w) if isinstance(w, int) else w for w in widths]
    return _case(
        f"pad[{shape},{widths},{value}]", lambda x: smelt.pad(x, widths, value),
        lambda x: reference.pad(x, pairs, value), shape, kind=kind,
    )  # fmt: skip


def _flip(shape, axis, kind="float"):
    axes = range(len(shape)) if axis is None else [axis] if isinstance(axis, int) else axis
    axes = {a % len(shape) for a in axes}
    return _case(
        f"flip[{shape},{axis}]", lambda x: smelt.flip(x, axis), lambda x: reference.flip(x, axes), shape, kind=kind
    )


def _roll(shape, shift, axis, kind="float"):
    def ref(x):
        return (
            reference.roll(x.reshape(-1), shift, 0).reshape(shape) if axis is None else reference.roll(x, shift, axis)
        )

    return _case(f"roll[{shape},{shift},{axis}]", lambda x: smelt.roll(x, shift, axis), ref, shape, kind=kind)


def _expand(shape, to, kind="float"):
    full = [shape[i - len(to) + len(shape)] if n == -1 else n for i, n in enumerate(to)]
    return _case(
        f"broadcast_to[{shape},{to}]", lambda x: x.broadcast_to(*to), lambda x: np.broadcast_to(x, full), shape, kind=kind
    )  # fmt: skip


def _slice(shape, text, kind="float"):
    def cut(x):
        return eval(f"x[{text}]", {"x": x})

    return _case(f"slice[{shape},{text}]", cut, cut, shape, kind=kind)


def _cast(source, target, values):
    """From every float dtype, or one of the integers; the result has the dtype that was asked for."""
    floating = source == "float"

    return Case(
        name=f"cast[{source},{target}]",
        op=lambda x: x.astype(target),
        reference=lambda x: reference.cast(x, target),
        inputs=lambda rng: [values(rng) if floating else values(rng).astype(source)],
        # One rounding to the target; below its normal numbers the distance is that at the smallest of them.
        bound=lambda given, result, u: UNIT.get(target, 0) * np.maximum(np.abs(np.nan_to_num(result)), 2.0**-14),
        grad=(0,) if floating and target == "float64" else (),
        dtypes=FLOATS if floating else ("float32",),
        result=target if target in FLOATS else "",
    )


def _floats(rng):
    special = [0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, 254.7, 255.5, 300.0, -1.0, 40000.0, -40000.0]
    return np.concatenate([special, rng.normal(size=37) * 100])


def _beyond(rng):
    """What fits no integer; finite values only as far as every float dtype has them."""
    return np.concatenate([_floats(rng), [np.nan, np.inf, -np.inf]])


def _integers(rng):
    return np.concatenate([[0, 1, 2, 100, 255], rng.integers(0, 256, size=40)])


def _wide(rng):
    return np.concatenate([[0, -1, 255, 256, -256, 2**31 - 1, -(2**31), 65535], rng.integers(-1000, 1000, size=40)])


CASES = [
    *(_reshape(*args) for args in [
        ((2, 3, 4), (6, 4)), ((2, 3, 4), (-1,)), ((6,), (1, 2, 3, 1)), ((1,), ()), ((), (1, 1)), ((0, 3), (3, 0)),
    ]),
    *(_permute(*args) for args in [
        ((3, 5), (1, 0)), ((33, 17), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((2, 3, 4), (0, 2, 1)), ((2, 5, 6, 3), (0, 3, 1, 2)),
        ((2, 3, 2, 3, 2), (4, 2, 0, 1, 3)), ((4,), (0,)), ((0, 3, 2), (2, 1, 0)), ((2, 3, 4), (-1, 0, -2)),
    ]),
    *(_permute((3, 4, 5), (2, 1, 0), kind) for kind in KINDS[1:]),
    *(_lazy((5, 7), use) for use in ("add", "reshape", "slice", "twice", "concat")),
    _case("to_nhwc[images]", smelt.to_nhwc, lambda x: reference.permute(x, (0, 2, 3, 1)), (2, 3, 4, 5)),
    _case("to_nchw[images]", smelt.to_nchw, lambda x: reference.permute(x, (0, 3, 1, 2)), (2, 3, 4, 5)),
    *(_concat(*args) for args in [
        (((2, 3), (4, 3)), 0), (((2, 3), (2, 1), (2, 5)), 1), (((2, 3, 4), (2, 0, 4), (2, 2, 4)), -2), (((3,),), 0),
        (((17,), (31,), (1,)), 0),
    ]),
    *(_concat(((2, 3), (2, 4)), 1, kind) for kind in KINDS[1:]),
    *(_stack((3, 5), 3, axis) for axis in (0, 1, 2, -1)),
    _stack((), 4, 0),
    *(_split(*args) for args in [
        ((7, 3), 3, 0), ((4, 9), [2, 0, 7], 1), ((2, 6, 3), [1, 5], -2), ((5,), 9, 0), ((3, 4), [1, 1, 1], 0),
    ]),
    *(_pad(*args) for args in [
        ((5,), [2]), ((3, 4), [(1, 2), (0, 3)]), ((2, 3, 4), [0, (2, 0), 1], -1.5), ((0, 3), [1, 1], 2.0), ((2, 2), [0, 0]),
    ]),
    *(_pad((2, 3), [1, (0, 2)], 1.0, kind) for kind in KINDS[1:]),
    *(_flip((3, 4, 5), axis) for axis in (0, 1, -1, (0, 2), None)),
    *(_flip((3, 5), 1, kind) for kind in KINDS[1:]),
    _flip((0, 3), 0),
    *(_roll((4, 7), shift, axis) for shift in (1, -3, 9, 0, 28) for axis in (0, 1, None)),
    *(_roll((3, 5), 2, 1, kind) for kind in KINDS[1:]),
    *(_expand(*args) for args in [
        ((5,), (3, 5)), ((3, 1), (3, 4)), ((1, 4, 1), (2, 3, 4, 5)), ((), (2, 2)), ((2, 1), (-1, 3)), ((1, 3), (0, 3)),
    ]),
    *(_expand((3, 1), (2, 3, 4), kind) for kind in KINDS[1:]),
    *(_slice((6, 9), text) for text in (
        "1:4", "::2", "::-1", ":, 2:7:3", "4:0:-2, ::-3", "-2", "..., -1", ":, None, 3", "2:2", "7:, 1",
        "-3:-1, -100:100", "...",
    )),
    _slice((4, 5, 6), "1, ::-2, 5:1:-3"),
    _slice((3, 4, 5, 6), "..., 0, ::5"),
    *(_slice((6, 9), "::-2, 1:8:3", kind) for kind in KINDS[1:]),
    *(_cast("float", target, _floats) for target in FLOATS),
    *(_cast("float", target, _beyond) for target in ("int64", "int32", "uint8", "bool")),
    *(
        _cast(source, target, _integers)
        for source in ("int64", "int32", "uint8")
        for target in (*FLOATS, "int64", "int32", "bool")
    ),
    *(_cast(source, "uint8", _wide) for source in ("int64", "int32")),
    *(_cast("bool", target, lambda rng: rng.integers(0, 2, size=40)) for target in (*FLOATS, "int64", "uint8", "bool")),
]  # fmt: skip
