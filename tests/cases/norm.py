"""batch_norm and layer_norm: tails, chunks of rows, large means, running statistics, residual and activation."""

import numpy as np

import smelt
from tests.cases import FLOATING, Case
from tests.reference import norm as reference


def _batch_inputs(shape, ratio, residual):
    def inputs(rng):
        c = shape[-1]
        x = rng.normal(size=shape) + ratio * rng.choice([-1.0, 1.0], size=c)
        given = [x, rng.normal(size=c), rng.normal(size=c), rng.normal(size=c), rng.uniform(0.5, 2, size=c)]
        return [*given, *([rng.normal(size=shape)] if residual else [])]

    return inputs


def _parameters(x, tensors):
    """Beside halves they are float32."""
    return [t.float() if x.dtype.name in ("bfloat16", "float16") else t for t in tensors]


def _batch(shape, training, ratio=0.0, residual=False, activation=None, eps=1e-5, grad=True):
    axes = tuple(range(len(shape) - 1))

    def op(x, *given):
        w, b, m, v = _parameters(x, given[:4])
        r = given[4:]
        return smelt.batch_norm(x, w, b, m, v, training, 0.1, eps, r[0] if r else None, activation)

    def bound(given, result, u):
        x, w, b, m, v, *r = given
        # After the product with weight, additions of bias and residual: 3 roundings of what they add.
        error = np.abs(w) * reference.normalised_error(x, axes, eps, u, None if training else (m, v))
        size = np.abs(b) + (np.abs(r[0]) if r else 0)
        return error + 3 * u * (np.abs(reference.batch_norm(*given[:5], training, eps)) + size)

    what = [f"mean{ratio:g}"] * bool(ratio) + ["residual"] * residual + ([activation] if activation else [])
    name = "_".join(["x".join(map(str, shape)), "train" if training else "eval", *what])
    return Case(
        name=f"batch_norm[{name}]",
        op=op,
        reference=lambda x, w, b, m, v, *r: reference.batch_norm(
            x, w, b, m, v, training, eps, r[0] if r else None, activation
        ),
        inputs=_batch_inputs(shape, ratio, residual),
        bound=bound,
        grad=((0, 1, 2, 5) if residual else (0, 1, 2)) if grad else (),
        dtypes=FLOATING,
    )


def _running(shape, ratio, momentum):
    """The running statistics after one batch in training; evaluation leaves them alone."""
    axes = tuple(range(len(shape) - 1))

    def op(x, w, b, m, v):
        smelt.batch_norm(x, w, b, m, v, True, momentum)
        # Copies: evaluation must leave the statistics alone.
        mean, var = m.copy(), v.copy()
        smelt.batch_norm(x, w, b, m, v, False, momentum)
        return smelt.stack([mean, var]), smelt.stack([m, v])

    def ref(x, w, b, m, v):
        return (np.stack(reference.running(x, m, v, momentum)),) * 2

    def bound(given, result, u):
        x, _, _, m, v = given
        if x.size == 0:
            return 0.0
        n = x.size // x.shape[-1]
        of_mean, of_var = (e.reshape(-1) for e in reference.statistics_error(x, axes, u))
        # Four roundings: n - 1, difference, product, sum; each of at most the sizes that come in.
        sizes = np.stack([np.abs(m) + np.abs(x.mean(axis=axes)), v + x.var(axis=axes) * n / (n - 1)])
        return momentum * np.stack([of_mean, of_var * n / (n - 1)]) + 4 * u * (sizes + np.abs(result))

    return Case(
        name=f"batch_norm[running_{'x'.join(map(str, shape))}_mean{ratio:g}_{momentum}]",
        op=op,
        reference=ref,
        inputs=_batch_inputs(shape, ratio, False),
        bound=bound,
    )


def _layer(shape, weight=True, bias=True, ratio=0.0, eps=1e-5, grad=True, dtypes=FLOATING):
    def inputs(rng):
        x = rng.normal(size=shape) + ratio * rng.choice([-1.0, 1.0], size=(*shape[:-1], 1))
        return [x, *(rng.normal(size=shape[-1]) for wanted in (weight, bias) if wanted)]

    def parts(given):
        x, *rest = given
        return x, rest.pop(0) if weight else None, rest.pop(0) if bias else None

    def op(x, *given):
        return smelt.layer_norm(*parts((x, *_parameters(x, given))), eps)

    def bound(given, result, u):
        x, w, b = parts(given)
        scale = 1.0 if w is None else np.abs(w)
        error = scale * reference.normalised_error(x, (x.ndim - 1,), eps, u, chunk=x.size)
        return error + 3 * u * (np.abs(reference.layer_norm(x, w, None, eps)) + (0 if b is None else np.abs(b)))

    what = ["weight"] * weight + ["bias"] * bias + [f"mean{ratio:g}"] * bool(ratio)
    what += ["float64"] * (len(dtypes) == 1)
    return Case(
        name=f"layer_norm[{'_'.join(['x'.join(map(str, shape)), *what])}]",
        op=op,
        reference=lambda *given: reference.layer_norm(*parts(given), eps),
        inputs=inputs,
        bound=bound,
        grad=tuple(range(1 + weight + bias)) if grad else (),
        dtypes=dtypes,
    )


CASES = [
    *(_batch((12, c), training) for c in (1, 7, 8, 9, 16, 17, 33) for training in (True, False)),
    *(_batch((n, 5), True) for n in (3, 63, 64, 65, 129)),  # around the chunks of rows
    _batch((2, 3), True, eps=0.5),  # with less, the slopes of two rows are not smooth enough for differences
    _batch((2, 5, 6, 3), True),
    _batch((2, 5, 6, 3), False),
    _batch((3, 7, 8), True),
    _batch((5000, 3), True, grad=False),  # more than 64 rows in a chunk
    *(_batch((4, 5, 5, 9), True, ratio, grad=ratio == 100) for ratio in (100, 10000)),
    _batch((4, 5, 5, 9), False, 100),
    *(_batch((4, 3, 5), training, residual=True) for training in (True, False)),
    *(
        _batch((4, 3, 9), training, residual=residual, activation="relu")
        for training in (True, False)
        for residual in (True, False)
    ),
    *(_batch((0, 3), training) for training in (True, False)),
    *(_batch((3, 0), training) for training in (True, False)),
    _running((2, 3), 0, 0.1),
    _running((7, 6, 9), 0, 0.3),
    *(_running((60, 17), ratio, 1.0) for ratio in (100, 1000)),  # one chunk: the bound is narrow
    _running((130, 17), 10000, 1.0),
    _running((5000, 2), 100, 0.1),
    _running((0, 3), 0, 0.1),
    *(_layer((3, d)) for d in (7, 8, 9, 15, 16, 17, 33, 130)),
    *(_layer((5, d), eps=0.5) for d in (1, 2)),  # two elements: as two rows above
    *(_layer((4, 11), weight, bias) for weight, bias in [(False, False), (True, False), (False, True)]),
    _layer((2, 3, 4, 9)),
    _layer((9,)),
    _layer((200, 5)),  # several chunks of rows in the gradient of the weight
    *(_layer((3, 33), ratio=ratio, grad=False) for ratio in (100, 10000)),
    # The bound for float32 gradients knows nothing of the mean, which here costs two digits of the differences.
    _layer((3, 33), ratio=100, dtypes=("float64",)),
    _layer((2, 5000), grad=False),
    _layer((0, 7)),
    _layer((3, 0)),
]
