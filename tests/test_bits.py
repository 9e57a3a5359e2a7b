"""The same bits for any number of threads, at any place in memory and of the tensor, and at any batch size."""

import numpy as np
import pytest

import smelt
from smelt import losses
from tests.cases import FLOATING
from tests.cases.binary import BINARY
from tests.cases.elementwise import UNARY


def bits(tensors):
    """What the tensors hold, byte for byte (bfloat16 through float32, which has every bfloat16)."""
    return [t.detach().numpy().tobytes() for t in tensors]


def with_gradient(f, *arrays, dtype="float32"):
    smelt.manual_seed(5)
    leaves = [smelt.from_numpy(a).to(dtype).detach().requires_grad_() for a in arrays]
    y = f(*leaves)
    (y * y).sum().backward()
    return bits([y, *(leaf.grad for leaf in leaves)])


LARGE = {
    "add": (lambda a, b: a + b, [(300, 1), (300, 257)]),
    "mul": (lambda a, b: a * b, [(70001,), (70001,)]),
    "maximum": (smelt.maximum, [(300, 257), (257,)]),
    "gelu": (smelt.gelu, [(70001,)]),
    "sum_all": (smelt.sum, [(70001,)]),
    "sum_rows": (lambda x: smelt.sum(x, axis=1), [(5, 20011)]),
    "sum_columns": (lambda x: smelt.sum(x, axis=0), [(900, 311)]),
    "mean_runs": (lambda x: smelt.mean(x, axis=(0, 2)), [(37, 19, 101)]),
    "var": (lambda x: smelt.var(x, axis=0), [(900, 101)]),
    "max": (lambda x: smelt.max(x, axis=0), [(900, 311)]),
    "cumsum": (lambda x: smelt.cumsum(x, axis=0), [(300, 311)]),
    "softmax": (smelt.softmax, [(900, 101)]),
    "log_softmax": (lambda x: smelt.log_softmax(x, axis=0), [(900, 101)]),
    "cross_entropy": (lambda x: losses.cross_entropy(x, smelt.arange(3000) % 37, label_smoothing=0.1), [(3000, 37)]),
    "mse": (losses.mse_loss, [(50021,), (50021,)]),
    "bce": (lambda x: losses.binary_cross_entropy_with_logits(x, smelt.ones(50021), reduction="sum"), [(50021,)]),
    "dropout": (lambda x: smelt.dropout(x, 0.3), [(70001,)]),
    "randn": (lambda x: x + smelt.randn(70001), [(70001,)]),
}


@pytest.mark.parametrize("name", LARGE)
def test_threads_do_not_change_a_bit(isa, name, rng):
    f, shapes = LARGE[name]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    results = []
    for threads in (1, 2, 3, 5):
        smelt.set_num_threads(threads)
        results.append(with_gradient(f, *arrays))
    assert results[1:] == results[:1] * 3


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("name", UNARY)
def test_an_element_has_its_bits_wherever_it_stands(isa, name, dtype, rng):
    """In any lane, in a whole vector or in a tail: the parts of a tensor give the parts of the result."""
    op, _, draw, _ = UNARY[name]
    x = smelt.from_numpy(draw(rng, 67)).to(dtype)
    whole = op(x)
    for begin, end in ((0, 1), (1, 4), (3, 67), (5, 22), (31, 48), (66, 67)):
        assert bits([op(x[begin:end])]) == bits([whole[begin:end]])


@pytest.mark.parametrize("name", BINARY)
def test_broadcasting_gives_the_bits_of_the_whole(isa, name, rng):
    """Of a repeated element, row or column as of memory that holds the copies."""
    op, _, draw, _, _ = BINARY[name]
    a, b = (smelt.from_numpy(v.astype(np.float32)) for v in draw(rng, (5, 19), (5, 19)))
    for part in (a[:1], a[:, :1], a[:1, :1]):
        spread = smelt.from_numpy(np.ascontiguousarray(np.broadcast_to(part.numpy(), (5, 19))))
        assert bits([op(part, b)]) == bits([op(spread, b)])
    number = float(b[2, 3])
    assert bits([op(a, number)]) == bits([op(a, smelt.full((5, 19), number))])
    assert bits([op(number, a)]) == bits([op(smelt.full((5, 19), number), a)])


ROWS = {
    "softmax": smelt.softmax,
    "log_softmax": smelt.log_softmax,
    "sum": lambda x: smelt.sum(x, axis=1),
    "prod": lambda x: smelt.prod(x, axis=1),
    "cumsum": smelt.cumsum,
    "var": lambda x: smelt.var(x, axis=1),
    "cross_entropy": lambda x: losses.cross_entropy(x, smelt.full(len(x), 3, dtype="int64"), reduction="none"),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("n", [7, 8, 33, 1000])
def test_a_row_does_not_depend_on_the_others(isa, name, n, rng):
    x = smelt.from_numpy(rng.normal(size=(9, n)).astype(np.float32))
    whole = ROWS[name](x)
    for begin, end in ((0, 1), (2, 7), (8, 9)):
        assert bits([ROWS[name](x[begin:end])]) == bits([whole[begin:end]])
