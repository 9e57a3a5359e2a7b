"""attention: lengths around the blocks of 64 to 70 queries and 128 keys, masks, shared heads, rows that see nothing."""

import numpy as np

import smelt
from tests.cases import UNIT, Case
from tests.reference import attention as reference

# e^x below 2^-126 is flushed to 0 in float32.
FLUSHED = 2.0**-126


def _bound(halves, causal, scale):
    def bound(given, y, u):
        q, k, v, *more = given
        mask = next((m for m in more if m.ndim != 1), None)
        lengths = next((m for m in more if m.ndim == 1), None)
        group = q.shape[2] // k.shape[2] if k.shape[2] else 1
        q, k, v = (np.moveaxis(x, 2, 1) for x in (q, np.repeat(k, group, 2), np.repeat(v, group, 2)))
        factor = abs(q.shape[-1] ** -0.5 if scale is None else scale)
        size = np.einsum("bhid,bhjd->bhij", np.abs(q), np.abs(k)) * factor
        exact = np.einsum("bhid,bhjd->bhij", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        allowed, added = reference.seen(size.shape, causal, mask, lengths)
        exact = np.where(allowed, exact + added, -np.inf)
        top = exact.max(-1, keepdims=True, initial=-np.inf)
        distance = np.where(allowed, np.where(np.isneginf(top), 0, top) - exact, 0)
        e = np.where(allowed, np.exp(-distance), 0)
        total = e.sum(-1, keepdims=True)
        p = e / np.where(total == 0, 1, total)
        keys = k.shape[2]
        # A score is a sum of D products, then scaled, masked and shifted by the largest; e^x is within 3 units. A larger
        # score rescales what was summed up before, once for each block of 128 keys.
        score = (q.shape[-1] + 3) * size + np.abs(added) + size
        term = np.where(allowed, score, 0) + 2 * distance + 3 + 3 * (keys // 128 + 1)
        # The sum of the terms errs as they do on average, and each of the additions once; the sum of the values likewise.
        mean = (p * term).sum(-1, keepdims=True)
        units = (term + mean + 2 * keys + 4) * u * (1 if u > 2.0**-53 else 2)
        if halves:  # for the product with the values a probability may be rounded to the half type
            units = units + UNIT["bfloat16"]
        error = np.einsum("bhij,bhjd->bhid", p * units + np.where(allowed, FLUSHED, 0), np.abs(v))
        error = np.moveaxis(error, 1, 2)
        return error.reshape(np.shape(y))

    return bound


def _case(b, tq, tk, h, hkv, d, dv, causal=False, mask="", lengths=None, scale=None, draw=1.0):
    kind = {
        "": None,
        "keys": (b, 1, 1, tk),
        "heads": (h, tq, 1),
        "all": (b, h, tq, tk),
        "two": (tq, tk),
        "learned": (h, tq, tk),
    }[mask.split("_")[-1]]

    def inputs(rng):
        arrays = [rng.normal(size=s) * draw for s in ((b, tq, h, d), (b, tk, hkv, d), (b, tk, hkv, dv))]
        if kind is not None:
            m = rng.normal(size=kind)
            if mask.startswith("bool"):
                m = m > 0
                m[..., : tq // 3, :] = False  # rows that see nothing
            elif mask.startswith("inf"):
                m = np.where(m > 0.5, -np.inf, m)
            arrays.append(m)
        if lengths is not None:
            arrays.append(np.array(lengths, np.int64))
        return arrays

    def call(f):
        def run(q, k, v, *more):
            options = {"causal": causal, "scale": scale}
            if kind is not None:
                options["mask"] = more[0]
            if lengths is not None:
                options["lengths"] = more[-1]
            return f(q, k, v, **options)

        return run

    name = f"{b}x{tq}x{tk}_{h}x{hkv}_{d}x{dv}{'_causal' * causal}{'_' * bool(mask)}{mask}{'_lengths' * (lengths is not None)}"
    name += f"_{scale}" * (scale is not None) + f"_draw{draw}" * (draw != 1)
    learned = mask == "learned"
    return [
        Case(
            name=f"attention[{name}{'_halves' * halves}]",
            op=call(smelt.attention),
            reference=call(reference.attention),
            inputs=inputs,
            bound=_bound(halves, causal, scale),
            grad=((0, 1, 2, 3) if learned else (0, 1, 2)) if draw == 1 else (),
            # A learned mask of float32 and one of a half are not the same computation.
            dtypes=("bfloat16", "float16") if halves else ("float32", "float64"),
        )
        for halves in (False, True)
    ]


def _packed(b, t, h, hkv, d, causal):
    def bound(given, y, u):
        parts = given[0].reshape(b, t, h + 2 * hkv, d)
        return _bound(False, causal, None)(np.split(parts, [h, h + hkv], axis=2), y, u)

    return Case(
        name=f"attention_packed[{b}x{t}_{h}x{hkv}_{d}{'_causal' * causal}]",
        op=lambda qkv: smelt.attention_packed(qkv, h, hkv, causal=causal),
        reference=lambda qkv: reference.attention_packed(qkv, h, hkv, causal=causal),
        inputs=lambda rng: [rng.normal(size=(b, t, (h + 2 * hkv) * d))],
        bound=bound,
        grad=(0,),
    )


CASES = [
    case
    for cases in (
        _case(1, 1, 1, 1, 1, 1, 1),
        _case(2, 3, 5, 2, 2, 4, 3),
        _case(2, 5, 3, 2, 1, 7, 5, causal=True),  # the first queries see nothing
        _case(1, 64, 64, 4, 2, 16, 16, causal=True),
        _case(1, 65, 129, 2, 2, 17, 33),
        _case(1, 71, 131, 2, 1, 33, 15, causal=True),
        _case(1, 140, 257, 1, 1, 64, 64, causal=True),
        _case(1, 7, 600, 1, 1, 5, 6),  # the keys of a head in parts
        _case(1, 13, 17, 1, 1, 300, 280),
        _case(2, 0, 5, 2, 2, 4, 4),
        _case(2, 5, 0, 2, 2, 4, 4),
        _case(0, 5, 5, 2, 2, 4, 4),
        _case(2, 5, 5, 0, 0, 4, 4),
        _case(3, 9, 11, 2, 1, 8, 8, mask="bool_keys"),
        _case(2, 9, 11, 2, 2, 8, 8, mask="bool_all", causal=True),
        _case(2, 67, 135, 2, 2, 8, 8, mask="bool_two"),
        _case(2, 9, 11, 2, 2, 8, 8, mask="heads"),
        _case(2, 9, 140, 4, 2, 8, 8, mask="inf_all"),
        _case(2, 9, 11, 4, 2, 8, 8, mask="learned", causal=True),
        _case(4, 9, 11, 2, 2, 8, 8, lengths=[11, 0, 1, 7]),
        _case(3, 70, 150, 2, 1, 8, 8, lengths=[150, 129, 3], causal=True, mask="bool_keys"),
        _case(1, 9, 11, 2, 2, 8, 8, scale=-0.7, causal=True),
        _case(1, 9, 11, 2, 2, 8, 8, scale=0.0, causal=True),
        _case(1, 9, 200, 2, 2, 8, 8, draw=9.0, causal=True),  # scores up to some hundred
    )
    for case in cases
] + [
    _packed(2, 9, 2, 2, 4, True),
    _packed(1, 70, 4, 2, 8, False),
    _packed(2, 150, 3, 1, 16, True),
    _packed(0, 5, 2, 2, 4, False),
    _packed(2, 0, 2, 2, 4, False),
]
