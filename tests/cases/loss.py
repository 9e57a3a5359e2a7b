"""Losses: reductions, class weights, label smoothing, ignored rows, weights of the positive term, NaN in one row."""

import numpy as np

from smelt import losses
from tests.cases import TAILS, Case
from tests.reference import loss as reference

REDUCTIONS = ("mean", "sum", "none")


def _quiet(f):
    def run(*args):
        with np.errstate(all="ignore"):
            return f(*args)

    return run


def _over(terms, total, reduction, u, weight_sum=None):
    """The error of a reduction: that of the terms, and n + 2 roundings of their sum."""
    if reduction == "none":
        return terms
    n = terms.size
    error = terms.sum() + (n + 2) * u * total
    return error / (n if weight_sum is None else weight_sum) if reduction == "mean" and n else error


# --------------------------------------------------------------------------------------------------- cross entropy


def _cross_entropy(
    shape, reduction, weight=False, smoothing=0.0, ignore=-100, what="", change=None, grad=True, kind="int64"
):
    """change may alter the logits and labels in place."""
    classes = shape[-1]

    def inputs(rng):
        logits, labels = rng.normal(size=shape) * 2, rng.integers(0, classes, size=shape[:-1])
        if change:
            change(logits, labels)
        return [logits, labels.astype(kind), *([rng.uniform(0.2, 2, size=classes)] if weight else [])]

    def formula(logits, labels, *w, to=reduction):
        return np.asarray(
            reference.cross_entropy(logits, labels.astype(np.int64), *(w or [None]), smoothing, ignore, to)
        )

    def bound(given, y, u):
        logits, labels, *w = given
        if logits.size == 0:
            return 0.0
        # A term is lse - x: lse has the sum's relative error as an absolute one, about n + 4 units, those of the rounded
        # distances to the maximum (weighted by p, below 2 units for p d e^-d sums), and its own size twice.
        largest = np.nan_to_num(w[0]).max() if w else 1.0
        size = np.nan_to_num(np.abs(logits), posinf=0.0).max(axis=-1)
        row = largest * u * (classes + 10 + 6 * size + 4 * np.log(classes))
        row = row * (1 + smoothing * (classes + 4))  # the smoothed sum over classes rounds once a class
        values = np.nan_to_num(np.abs(formula(logits, labels, *w, to="none")), posinf=0.0)
        counted = np.where(labels == ignore, 0.0, (w[0] if w else np.ones(classes))[np.maximum(labels, 0) % classes])
        return 2 * _over(row + 4 * u * values, values.sum(), reduction, u, counted.sum())  # the reference rounds too

    options = [
        ("weighted", weight),
        (f"smooth{smoothing}", smoothing),
        (f"ignore{ignore}", ignore != -100),
        (what, what),
    ]
    text = "_".join(["x".join(map(str, shape)), reduction, kind, *(t for t, on in options if on)])
    return Case(
        name=f"cross_entropy[{text}]",
        op=lambda x, y, w=None: losses.cross_entropy(x, y, w, smoothing, ignore, reduction),
        reference=_quiet(formula),
        inputs=inputs,
        bound=_quiet(bound),
        grad=(0,) if grad else (),
    )


def _ignore_some(value):
    def change(logits, labels):
        labels.reshape(-1)[::3] = value

    return change


def _ignore_all(logits, labels):
    labels[...] = -100


def _ignored_nan(logits, labels):
    """A NaN in an ignored row counts nothing."""
    logits[1, 2] = np.nan
    labels[1] = -100


def _nan_row(logits, labels):
    logits[1, 2] = np.nan


def _masked(logits, labels):
    """Classes at -inf have no probability; the labels are others."""
    logits[:, 0] = -np.inf
    labels[labels == 0] = 1


def _huge(logits, labels):
    logits *= 500


ROWS = [(n, 5) for n in TAILS] + [(4, n) for n in TAILS if n]
CROSS_ENTROPY = [
    *(_cross_entropy(shape, "mean") for shape in ROWS),
    # Of one class the gradient is 0: what is left of p - 1 is rounding.
    *(_cross_entropy(shape, "mean", True, 0.1, grad=shape[1] > 1) for shape in ROWS if shape != (1000, 5)),
    *(_cross_entropy((9, 17), r, w, s, i, change=_ignore_some(i))
      for r in REDUCTIONS for w in (False, True) for s in (0.0, 0.3) for i in (-100, 3)),
    *(_cross_entropy(shape, r) for shape in ((2, 3, 4, 7), (2, 1, 3, 1, 2, 2, 1, 3), (0, 3, 4)) for r in REDUCTIONS),
    *(_cross_entropy((9, 6), "none", kind=kind) for kind in ("int32", "uint8")),
    *(_cross_entropy((5, 6), r, what="all_ignored", change=_ignore_all) for r in REDUCTIONS),
    *(_cross_entropy((5, 6), r, what="ignored_nan", change=_ignored_nan, grad=False) for r in REDUCTIONS),
    *(_cross_entropy((5, 6), r, what="nan", change=_nan_row, grad=False) for r in REDUCTIONS),
    *(_cross_entropy((5, 6), r, what="masked", change=_masked, grad=False) for r in REDUCTIONS),
    *(_cross_entropy((5, 6), r, w, what="huge", change=_huge, grad=False) for r in REDUCTIONS for w in (False, True)),
]  # fmt: skip

# ----------------------------------------------------------------------------------------------------- pointwise


def _apart(rng, shape):
    """Predictions and targets whose distance keeps off 0 and 1, where the slopes of l1 and huber change."""
    t = rng.normal(size=shape)
    distance = rng.choice([0.2, 0.5, 0.8, 1.2, 2.0, 3.0], size=shape) + rng.uniform(0, 0.1, size=shape)
    return [t + distance * rng.choice([-1, 1], size=shape), t]


def _probabilities(rng, shape):
    return [rng.normal(size=shape) * 3, rng.choice([0.0, 1.0, 0.25, 0.9], size=shape)]


def _distance_terms(size):
    """The distance is rounded once; the loss is a product of it of the given size and has at most four roundings more."""
    return lambda x, t, u: 6 * u * size(np.abs(x - t))


def _bce_terms(x, t, u, pos=1.0):
    # (1 - t) x and (1 + (pos - 1) t) softplus(-x) are of the size of |x| + 1 and may cancel; softplus is within 3 units in
    # the last place, and four more roundings.
    return 10 * u * (1 + np.maximum(pos, 1)) * (np.abs(x) + 1)


# Op, definition, inputs, error of the terms.
POINTWISE = {
    "mse_loss": (losses.mse_loss, reference.mse, _apart, _distance_terms(np.square)),
    "l1_loss": (losses.l1_loss, reference.l1, _apart, _distance_terms(np.abs)),
    "huber_loss": (losses.huber_loss, reference.huber, _apart, _distance_terms(lambda d: d * np.minimum(d, 2.5))),
    "binary_cross_entropy_with_logits": (
        losses.binary_cross_entropy_with_logits, reference.binary_cross_entropy, _probabilities, _bce_terms,
    ),
}  # fmt: skip


def _pointwise(name, shape, reduction, what="", draw=None, grad=True, pos_shape=None, **options):
    op, formula, own_draw, terms = POINTWISE[name]
    weighted = pos_shape is not None

    def inputs(rng):
        return [*(draw or own_draw)(rng, shape), *([rng.uniform(0.5, 3, size=pos_shape)] if weighted else [])]

    def bound(given, y, u):
        values = np.nan_to_num(np.abs(formula(*given, reduction="none", **options)), posinf=0.0)
        error = np.nan_to_num(terms(given[0], given[1], u, *given[2:]), posinf=0.0)
        return 2 * _over(np.broadcast_to(error, values.shape), values.sum(), reduction, u)  # the reference rounds too

    extra = "".join(f"_{k}{v}" for k, v in options.items()) + (f"_pos{len(pos_shape)}" if weighted else "")
    return Case(
        name=f"{name}[{'x'.join(map(str, shape)) or 'scalar'}_{reduction}{extra}{what}]",
        op=lambda *args: op(*args, reduction=reduction, **options),
        reference=_quiet(lambda *args: np.asarray(formula(*args, reduction=reduction, **options))),
        inputs=inputs,
        bound=_quiet(bound),
        grad=() if not grad else (0,) if name.startswith("binary") else (0, 1),
    )


def _one_nan(rng, shape):
    x, t = _probabilities(rng, shape)
    x[1, 1] = np.nan
    return [x, t]


def _extreme(rng, shape):
    """Neither the powers nor the squares overflow."""
    return [
        rng.choice([-1e4, -120.0, -88.8, -30.0, 0.0, 30.0, 88.8, 120.0, 1e4], size=shape),
        rng.integers(0, 2, shape) * 1.0,
    ]


CASES = [
    *CROSS_ENTROPY,
    *(_pointwise(name, (n,), "mean") for name in POINTWISE for n in TAILS),
    *(_pointwise(name, (n,), "none") for name in POINTWISE for n in (0, 1, 7, 8, 9, 17)),
    *(_pointwise(name, shape, r) for name in POINTWISE for r in REDUCTIONS
      for shape in ((), (5, 7), (2, 1, 3, 1, 2, 2, 1, 3), (3, 0, 2))),
    *(_pointwise(name, (20011,), r) for name in POINTWISE for r in ("mean", "none")),
    *(_pointwise("huber_loss", (5, 7), r, delta=d) for r in REDUCTIONS for d in (0.7, 2.5)),
    *(_pointwise("binary_cross_entropy_with_logits", (5, n), r, pos_shape=p)
      for r in REDUCTIONS for n in (1, 7, 8, 9, 17) for p in ((), (n,))),
    *(_pointwise(name, (3, 5), r, "_nan", _one_nan, grad=False) for name in POINTWISE for r in REDUCTIONS),
    *(_pointwise(name, (5, 9), r, "_extreme", _extreme, grad=False) for name in POINTWISE for r in REDUCTIONS),
]  # fmt: skip
