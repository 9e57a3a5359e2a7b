"""Normalisations: tails, chunks of rows, large means, running statistics, residual and activation."""

import numpy as np

import smelt
from tests.cases import FLOATING, Case, spaced
from tests.reference import norm as reference
from tests.reference.pool import pool, windows


def _batch_inputs(shape, ratio, residual, apart=False):
    def inputs(rng):
        c = shape[-1]
        x = spaced(rng, shape) if apart else rng.normal(size=shape)
        x = x + ratio * rng.choice([-1.0, 1.0], size=c)
        weight = rng.choice([-1.0, 1.0], size=c) * rng.uniform(0.2, 2, size=c) if apart else rng.normal(size=c)
        given = [x, weight, rng.normal(size=c), rng.normal(size=c), rng.uniform(0.5, 2, size=c)]
        return [*given, *([rng.normal(size=shape)] if residual else [])]

    return inputs


def _parameters(x, tensors):
    """Beside halves they are float32."""
    return [t.float() if x.dtype.name in ("bfloat16", "float16") else t for t in tensors]


def _batch(shape, training, ratio=0.0, residual=False, activation=None, eps=1e-5, grad=True, max_pool=None):
    axes = tuple(range(len(shape) - 1))

    def largest(y):
        """The largest pixel of each window, to which no error is added."""
        if max_pool is None or np.ndim(y) != 4:
            return y
        return pool(y, *(windows(y.shape[1 + i], max_pool[i], max_pool[i], 0) for i in (0, 1)), True)

    def op(x, *given):
        w, b, m, v = _parameters(x, given[:4])
        r = given[4:]
        return smelt.batch_norm(x, w, b, m, v, training, 0.1, eps, r[0] if r else None, activation, max_pool)

    def bound(given, result, u):
        x, w, b, m, v, *r = given
        # After the product with weight, additions of bias and residual: 3 roundings of what they add.
        error = np.abs(w) * reference.normalised_error(x, axes, eps, u, None if training else (m, v))
        size = np.abs(b) + (np.abs(r[0]) if r else 0)
        return largest(error + 3 * u * (np.abs(reference.batch_norm(*given[:5], training, eps)) + size))

    what = [f"mean{ratio:g}"] * bool(ratio) + ["residual"] * residual + ([activation] if activation else [])
    what += [f"pool{max_pool[0]}x{max_pool[1]}", *(["values"] * (not grad))] if max_pool else []
    name = "_".join(["x".join(map(str, shape)), "train" if training else "eval", *what])
    return Case(
        name=f"batch_norm[{name}]",
        op=op,
        reference=lambda x, w, b, m, v, *r: largest(
            reference.batch_norm(x, w, b, m, v, training, eps, r[0] if r else None, activation)
        ),
        inputs=_batch_inputs(shape, ratio, residual, apart=max_pool is not None),
        bound=bound,
        between=(lambda *given: largest(np.abs(reference.batch_norm(*given[:5], training, eps)))) if residual else None,
        grad=((0, 1, 2, 5) if residual else (0, 1, 2)) if grad else (),
        dtypes=FLOATING
        if max_pool is None or not grad
        else ("float32", "float64"),  # rounding makes ties, which change gradients
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
        error = scale * reference.normalised_error(x, (x.ndim - 1,), eps, u, chunk=4096)
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


def _rms(shape, weight=True, size=1.0, eps=1e-5, grad=True):
    def inputs(rng):
        return [size * rng.normal(size=shape), *([rng.normal(size=shape[-1])] * weight)]

    def op(x, *given):
        return smelt.rms_norm(x, *(_parameters(x, given) or [None]), eps)

    def bound(given, result, u):
        # The sum of d squares, relatively; half of it is in the root; 6 roundings of mean, eps, root, inverse and products.
        return (0.5 * (shape[-1] + 2) + 6) * u * np.abs(result)

    what = ["weight"] * weight + [f"size{size:g}"] * (size != 1)
    return Case(
        name=f"rms_norm[{'_'.join(['x'.join(map(str, shape)), *what])}]",
        op=op,
        reference=lambda x, w=None: reference.rms_norm(x, w, eps),
        inputs=inputs,
        bound=bound,
        grad=tuple(range(1 + weight)) if grad else (),
        dtypes=FLOATING,
    )


def _group(shape, groups, parameters=True, ratio=0.0, eps=1e-5, grad=True):
    def inputs(rng):
        c = shape[-1]
        x = rng.normal(size=shape) + ratio * rng.choice([-1.0, 1.0], size=c)
        return [x, *(rng.normal(size=c) for _ in range(2 * parameters))]

    def op(x, *given):
        return smelt.group_norm(x, groups, *(_parameters(x, given) or [None, None]), eps)

    def bound(given, result, u):
        x, *rest = given
        if x.size == 0:
            return 0.0
        w, b = rest or (np.ones(shape[-1]), np.zeros(shape[-1]))
        # Merged are blocks of rows of a channel, and then the channels.
        error = reference.normalised_error(reference.grouped(x, groups), (1, 3), eps, u, chunk=1).reshape(x.shape)
        return np.abs(w) * error + 3 * u * (np.abs(reference.group_norm(x, groups, w, None, eps)) + np.abs(b))

    text = "x".join(map(str, shape))
    return Case(
        name=f"group_norm[{text}_{groups}{'' if parameters else '_bare'}{f'_mean{ratio:g}' if ratio else ''}]",
        op=op,
        reference=lambda x, w=None, b=None: reference.group_norm(x, groups, w, b, eps),
        inputs=inputs,
        bound=bound,
        grad=tuple(range(1 + 2 * parameters)) if grad else (),
        dtypes=FLOATING,
    )


def _added(shape, centred, weight=True, eps=1e-5):
    """Both results of a norm of a sum."""
    kind = "layer" if centred else "rms"

    def inputs(rng):
        vectors = [rng.normal(size=shape[-1]) for _ in range((1 + centred) * weight)]
        return [rng.normal(size=shape), rng.normal(size=shape), *vectors]

    def op(x, r, *given):
        f = smelt.add_layer_norm if centred else smelt.add_rms_norm
        return f(x, r, *_parameters(x, given), eps=eps)

    def formula(x, r, *given):
        return x + r, (reference.layer_norm if centred else reference.rms_norm)(x + r, *given, eps=eps)

    def bound(given, result, u):
        x, r, *rest = given
        s, w = x + r, rest[0] if rest else np.ones(shape[-1])
        if s.size == 0:
            return 0.0
        # The sum is rounded to the dtype of x before it is normalised, which is what the dtype's own bound does not see.
        return (0.5 * (shape[-1] + 2) + 16) * u * (np.abs(w) + np.abs(result) + np.abs(s))

    return Case(
        name=f"add_{kind}_norm[{'x'.join(map(str, shape))}{'_weight' if weight else ''}]",
        op=op,
        reference=formula,
        inputs=inputs,
        bound=bound,
        grad=tuple(range(2 + (1 + centred) * weight)),
    )


CASES = [
    *(_rms((5, d), eps=0.5) for d in (1, 2)),  # with less the gradient cancels
    *(_rms((3, d)) for d in (7, 8, 9, 15, 16, 17, 33, 130)),
    *(
        _rms(shape, weight)
        for shape in ((4, 11), (2, 3, 4, 9), (9,), (200, 5), (0, 7), (3, 0))
        for weight in (True, False)
    ),
    _rms((2, 5000), grad=False),
    *(_rms((3, 33), size=size, grad=False) for size in (1e-4, 1e4)),
    *(_group((3, 5, 4, c), groups) for c, groups in ((4, 2), (6, 6), (7, 7), (7, 1), (16, 4), (18, 6), (34, 2))),
    *(_group(shape, 2, parameters) for shape in ((2, 6), (1, 9, 4), (5, 3, 8)) for parameters in (True, False)),
    _group((1, 200, 6), 3),  # an image is cut in chunks
    _group((2, 700, 4), 2, grad=False),
    *(_group((2, 5, 5, 6), 3, ratio=ratio, grad=False) for ratio in (100, 1000)),
    *(_group(shape, 2) for shape in ((0, 5, 4), (2, 0, 4), (2, 5, 0))),
    *(
        _added(shape, centred, weight)
        for shape in ((3, 33), (200, 5), (0, 4))
        for centred in (True, False)
        for weight in (True, False)
    ),
    *(_batch((12, c), training) for c in (1, 7, 8, 9, 16, 17, 33) for training in (True, False)),
    *(_batch((n, 5), True) for n in (3, 63, 64, 65, 129)),  # around the chunks of rows
    _batch((2, 3), True, eps=0.5),  # with less, the slopes of two rows are not smooth enough for differences
    _batch((2, 5, 6, 3), True),
    _batch((2, 5, 6, 3), False),
    *(
        _batch(shape, training, activation=activation, grad=grad, max_pool=size)
        for shape, size in [
            ((2, 4, 6, 3), (2, 2)),
            ((2, 5, 7, 9), (2, 3)),
            ((1, 3, 4, 17), (3, 4)),
            ((3, 3, 2, 40), (1, 1)),
        ]
        for training in (True, False)
        for activation, grad in ((None, True), ("relu", True), ("relu", False))
    ),
    _batch((2, 4, 6, 3), True, residual=True, activation="relu", max_pool=(2, 2)),
    _batch((2, 40, 21, 3), True, activation="relu", grad=False, max_pool=(20, 20)),  # places of more than a byte
    _batch((0, 4, 6, 3), True, activation="relu", max_pool=(2, 2)),
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
    *(_layer((2, d), grad=False) for d in (4096, 4097, 5000, 9001)),  # parts of a row are merged
    _layer((0, 7)),
    _layer((3, 0)),
]
