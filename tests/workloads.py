"""Calls that between them run every slot of the kernel table, each large enough to be shared among threads."""

import numpy as np

import smelt
from smelt import kernels, losses, optim


def as_made(array):
    return smelt.from_numpy(array)


def offset(array):
    """The same numbers, three elements behind the start of a buffer."""
    buffer = np.zeros(array.size + 3, array.dtype)
    buffer[3:] = array.reshape(-1)
    return smelt.from_numpy(buffer[3:].reshape(array.shape), copy=False)


def floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def with_gradients(make, rng, op, *arrays):
    """The result of an op, and the gradients of its floating inputs for a random gradient of the result."""
    given = [make(a) for a in arrays]
    leaves = [t.requires_grad_() for t, a in zip(given, arrays) if a.dtype.kind == "f"]
    y = op(*given)
    y.backward(make(floats(rng, *y.shape)))
    return [y.detach(), *(t.grad for t in leaves)]


def _elementwise(make, rng):
    x, y = floats(rng, 130, 301), floats(rng, 301)
    results = with_gradients(make, rng, lambda a, b: smelt.where(a > b, a * b, smelt.exp(a) / (b * b + 1)), x, y)
    t = make(x)
    return [*results, t.astype("int32"), t.astype("bfloat16"), t.permute(1, 0), smelt.arange(40000) * 0.5, t + 1]


def _reduce(make, rng):
    x = make(floats(rng, 700, 301))
    results = [f(x, axis) for f in (smelt.sum, smelt.mean, smelt.max, smelt.var) for axis in (None, 0, 1)]
    y = make(floats(rng, 7, 33, 41)).permute(2, 0, 1)
    results += [y.sum(axis=(0, 2)), y.min(axis=1), (x * 0.01 + 1).prod(axis=0), x.argmax(axis=0), x.argmin(axis=1)]
    return [*results, x.cumsum(0), x.cumsum(1), (x > 3).any(axis=1), (x > -3).all(axis=0)]


def _softmax(make, rng):
    x, long = floats(rng, 900, 103), floats(rng, 9, 5003)
    return [
        *with_gradients(make, rng, smelt.softmax, x), *with_gradients(make, rng, lambda t: smelt.log_softmax(t, 0), x),
        *with_gradients(make, rng, smelt.softmax, long), *with_gradients(make, rng, smelt.log_softmax, long),
    ]  # fmt: skip


def _losses(make, rng):
    x, y, labels = floats(rng, 5003, 11), floats(rng, 5003, 11), rng.integers(0, 11, 5003)
    weight = smelt.from_numpy(rng.uniform(0.5, 2, 11).astype(np.float32))
    target = make(labels)

    def cross_entropy(t):
        return losses.cross_entropy(t, target, weight=weight, label_smoothing=0.1, ignore_index=3)

    results = with_gradients(make, rng, cross_entropy, x)
    for loss in (losses.mse_loss, losses.l1_loss, losses.huber_loss):
        results += with_gradients(make, rng, loss, x, y)
    binary = make((y > 0).astype(np.float32))
    bce = losses.binary_cross_entropy_with_logits
    return results + with_gradients(make, rng, lambda t: bce(t, binary), x)


def _norm(make, rng):
    x, residual, w, b = floats(rng, 4001, 19), floats(rng, 4001, 19), floats(rng, 19), floats(rng, 19)
    mean, var = make(floats(rng, 19)), make(np.ones(19, np.float32))

    def batch_norm(t, scale, shift, other):
        return smelt.batch_norm(t, scale, shift, mean, var, True, residual=other, activation="relu")

    results = [*with_gradients(make, rng, batch_norm, x, w, b, residual), mean, var]
    results += with_gradients(make, rng, lambda t: smelt.batch_norm(t, make(w), make(b), mean, var, False), x)
    pooled = lambda t, w, b: smelt.batch_norm(t, w, b, mean, var, True, activation="relu", max_pool=(2, 3))  # noqa: E731
    results += with_gradients(make, rng, pooled, floats(rng, 3, 41, 50, 19), w, b)
    results += with_gradients(make, rng, smelt.layer_norm, floats(rng, 900, 71), floats(rng, 71), floats(rng, 71))
    results += with_gradients(make, rng, smelt.rms_norm, floats(rng, 900, 71), floats(rng, 71))
    for images in (3, 50):  # fewer than threads, and more
        x, w, b = floats(rng, images, 300, 18), floats(rng, 18), floats(rng, 18)
        results += with_gradients(make, rng, lambda t, scale, shift: smelt.group_norm(t, 6, scale, shift), x, w, b)
    x, residual = floats(rng, 900, 71), floats(rng, 900, 71)
    for norm in (smelt.add_layer_norm, smelt.add_rms_norm):
        results += with_gradients(make, rng, lambda t, other, f=norm: (lambda s, y: s * y)(*f(t, other)), x, residual)
    return results


def _conv(make, rng):
    results = []
    for image, kernel, options in [
        ((8, 20, 21, 16), (24, 3, 3, 16), {"padding": 1, "activation": "relu"}),
        ((16, 28, 28, 1), (8, 3, 3, 1), {"padding": "same"}),  # the weight gradient is cut in parts
        ((8, 15, 15, 12), (24, 3, 3, 6), {"stride": 2, "groups": 2, "dilation": 2}),
        ((9, 26, 23, 3), (40, 5, 3, 3), {"padding": 2, "stride": 2, "activation": "relu"}),
        ((2, 30, 31, 40), (72, 3, 3, 40), {"padding": 1, "activation": "relu"}),
        ((9, 6, 6, 32), (200, 3, 3, 32), {"padding": 1}),
        ((9, 30, 31, 12), (18, 3, 3, 4), {"padding": 1, "groups": 3, "activation": "relu"}),
        ((9, 30, 31, 20), (7, 5, 5, 20), {"padding": 2, "stride": (1, 2)}),
        ((5, 21, 7, 24), (41, 7, 7, 24), {"padding": 3}),
        ((8, 15, 19, 68), (68, 3, 5, 1), {"padding": 2, "groups": 68, "activation": "relu"}),
    ]:
        given = floats(rng, *image), floats(rng, *kernel), floats(rng, kernel[0])
        results += with_gradients(make, rng, lambda x, w, b, o=options: smelt.conv2d(x, w, b, **o), *given)
    given = floats(rng, 4, 13, 14, 40), floats(rng, 40, 4, 4, 24), floats(rng, 24)
    return results + with_gradients(
        make, rng, lambda x, w, b: smelt.conv_transpose2d(x, w, b, 2, 1, activation="relu"), *given
    )


def _pool(make, rng):
    x = floats(rng, 9, 24, 25, 17)
    return [
        *with_gradients(make, rng, lambda t: smelt.max_pool2d(t, 3, 2, 1), x),
        *with_gradients(make, rng, lambda t: smelt.avg_pool2d(t, 3, 2, 1), x),
        *with_gradients(make, rng, lambda t: smelt.adaptive_avg_pool2d(t, 5), x),
    ]


def _index(make, rng):
    x, index = floats(rng, 300, 67), rng.integers(0, 300, 2000)
    rows = make(index)
    results = with_gradients(make, rng, lambda t: smelt.embedding(rows, t), x)
    across = make(rng.integers(0, 300, (500, 67)))
    results += with_gradients(make, rng, lambda t: smelt.gather(t, across, 0), x)
    results += [smelt.scatter_add(make(x), across, make(floats(rng, 500, 67)), 0), make(x).sort(0), make(x).argsort(1)]
    t = make(x)
    t[rows[:9]] = 1.5
    return [*results, t, *smelt.nonzero(t > 1)]


def _matmul(make, rng):
    a, b, bias = floats(rng, 131, 515), floats(rng, 515, 97), floats(rng, 97)
    results = with_gradients(make, rng, lambda x, y, z: (x @ y + z).tanh(), a, b, bias)
    results += with_gradients(make, rng, lambda x, w, z: smelt.linear(x, w, z, "relu"), a, floats(rng, 97, 515), bias)
    results += with_gradients(make, rng, smelt.matmul, floats(rng, 5, 33, 70), floats(rng, 5, 70, 65))
    return results + with_gradients(make, rng, smelt.matmul, floats(rng, 2, 3000), floats(rng, 3000, 9))


def _attention(make, rng):
    lengths = smelt.tensor([130, 71, 0])
    mask = make(floats(rng, 6, 130, 1))

    def masked(q, k, v):
        return smelt.attention(q, k, v, causal=True, mask=mask, lengths=lengths)

    results = with_gradients(
        make, rng, masked, floats(rng, 3, 130, 6, 40), floats(rng, 3, 130, 2, 40), floats(rng, 3, 130, 2, 24)
    )
    # Few heads and many keys: the gradients of the queries are summed in parts.
    long = floats(rng, 1, 300, 1, 20), floats(rng, 1, 700, 1, 20), floats(rng, 1, 700, 1, 33)
    results += with_gradients(make, rng, smelt.attention, *long)
    packed = floats(rng, 2, 150, 3 * 64)
    results += with_gradients(make, rng, lambda t: smelt.attention_packed(t, 4, causal=True), packed)

    def low(t):
        return smelt.attention_packed(t.to("bfloat16"), 4, causal=True).float()

    return results + with_gradients(make, rng, low, packed)


def _random(make, rng):
    smelt.manual_seed(7)
    x = floats(rng, 301, 403)
    dropped = with_gradients(make, rng, lambda t: smelt.dropout(t, 0.3), x)
    return [*dropped, smelt.rand(50021), smelt.randn(50021), smelt.randint(-5, 9, 50021), smelt.randperm(999)]


def _optimizers(make, rng):
    results = []
    for make_optimizer in (
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: optim.Adam(p, lr=0.01, clip_norm=0.5),
        lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    ):
        parameters = [smelt.nn.Parameter(smelt.from_numpy(floats(rng, *s))) for s in ((211, 303), (7,), (65, 129))]
        optimizer = make_optimizer(parameters)
        for _ in range(3):
            for p in parameters:
                (p * make(floats(rng, *p.shape))).sum().backward()
            optimizer.step()
        results += [p.detach() for p in parameters]
    return results


def _guard(make, rng):
    before, x = make(floats(rng, 40000)), make(floats(rng, 40000))
    fine = [kernels.guard_loss(make(np.float32([value]))) for value in (1, np.nan, np.inf)]
    kernels.restore(before, x, failed=False)
    kept = x.copy()
    kernels.restore(before, x)
    return [kept, x, smelt.tensor(fine)]


def _probe(make, rng):
    kinds = ("fma", "fma_bf16", "read", "write", "copy", "update", "copy_cached")
    return [smelt.tensor([kernels.probe(smelt.zeros(8192), kind, 2) for kind in kinds])]


WORKLOADS = {
    f.__name__[1:]: f
    for f in (
        _elementwise, _reduce, _softmax, _losses, _norm, _conv, _pool, _index, _matmul, _attention, _random, _optimizers,
        _guard, _probe,
    )
}  # fmt: skip


def run(name, make=as_made):
    """The results of a workload, always from the same numbers."""
    rng = np.random.default_rng(sum(map(ord, name)))
    return [np.array(t.numpy()) for t in WORKLOADS[name](make, rng)]
