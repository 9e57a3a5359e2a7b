"""Optimizers against float64 references over many steps, and how they pack, skip, freeze and clip."""

import gc
import math
import os

import numpy as np
import pytest

import smelt
from smelt import nn, optim
from tests.processes import python

SHAPES = [(1,), (7, 11), (63,), (0, 3), (64,), (65,), (130, 127)]
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
KINDS = {
    "sgd": (optim.SGD, {"lr": 0.1}),
    "sgd decay": (optim.SGD, {"lr": 0.1, "weight_decay": 0.03}),
    "momentum": (optim.SGD, {"lr": 0.02, "momentum": 0.9}),
    "nesterov": (optim.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.03}),
    "adam": (optim.Adam, {"lr": 0.01}),
    "adam decay": (optim.Adam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.03}),
    "adamw": (optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "adamw default": (optim.AdamW, {}),
}


class Reference:
    """One parameter in float64, with a bound on the error of arithmetic of precision `unit`, carried along step by step.

    Each line of the update has at most 3 roundings, those of its rounded constants included; 4 leaves room for products
    of two errors.
    """

    def __init__(self, cls, options, value, unit):
        own = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
        own["weight_decay"] = 0.01 if cls is optim.AdamW else 0.0
        self.o, self.cls, self.k = {**own, **options}, cls, 4 * unit
        self.p = value.astype(np.float64)
        self.m, self.v, self.ep, self.em, self.ev = (np.zeros_like(self.p) for _ in range(5))

    def step(self, t, grad):
        """Step number t, counted from 1; a gradient of None leaves all as it is."""
        if grad is not None:
            (self._sgd if self.cls is optim.SGD else self._adam)(t, grad.astype(np.float64))

    def _coupled(self, grad):
        decay = self.o["weight_decay"]
        return grad + decay * self.p, decay * self.ep + self.k * (np.abs(grad) + decay * np.abs(self.p))

    def _sgd(self, t, grad):
        lr, mu, k = self.o["lr"], self.o["momentum"], self.k
        g, eg = self._coupled(grad)
        self.em = mu * self.em + eg + k * (mu * np.abs(self.m) + np.abs(g))
        self.m = mu * self.m + g
        d, ed = self.m, self.em
        if self.o["nesterov"]:
            d, ed = g + mu * self.m, eg + mu * self.em + k * (np.abs(g) + mu * np.abs(self.m))
        self._move(1.0, lr * d, lr * ed + k * lr * np.abs(d))

    def _adam(self, t, grad):
        (b1, b2), eps, lr, k = self.o["betas"], self.o["eps"], self.o["lr"], self.k
        decoupled = self.cls is optim.AdamW
        g, eg = (grad, k * np.abs(grad)) if decoupled else self._coupled(grad)
        self.em = b1 * self.em + (1 - b1) * eg + k * (b1 * np.abs(self.m) + (1 - b1) * np.abs(g))
        self.m = b1 * self.m + (1 - b1) * g
        self.ev = b2 * self.ev + 2 * (1 - b2) * np.abs(g) * eg + k * (b2 * self.v + (1 - b2) * g * g)
        self.v = b2 * self.v + (1 - b2) * g * g
        root = np.sqrt(self.v)
        denominator = root / math.sqrt(1 - b2**t) + eps
        # |sqrt(v) - sqrt(v - e)| <= e / sqrt(v)
        error = np.divide(self.ev, root, out=np.zeros_like(root), where=root > 0) / math.sqrt(1 - b2**t)
        error += k * denominator
        rate = lr / (1 - b1**t)
        update = rate * self.m / denominator
        self._move(
            1 - lr * self.o["weight_decay"] if decoupled else 1.0,
            update,
            (rate * self.em + np.abs(update) * error) / (denominator - error) + k * np.abs(update),
        )

    def _move(self, keep, update, error):
        self.ep = keep * self.ep + error + self.k * (np.abs(self.p) + np.abs(update))
        self.p = self.p * keep - update

    def check(self, parameter, state, name):
        for what, got, want, bound in (
            ("value", parameter, self.p, self.ep),
            ("momentum", state.get("momentum"), self.m, self.em),
            ("exp_avg", state.get("exp_avg"), self.m, self.em),
            ("exp_avg_sq", state.get("exp_avg_sq"), self.v, self.ev),
        ):
            if got is not None:
                error = np.abs(got.detach().numpy() - want)
                assert (error <= bound).all(), f"{what} of {name}: error {error.max():.3g}, bound {bound.max():.3g}"


def make_parameters(rng, dtype="float32", shapes=SHAPES):
    return [nn.Parameter(smelt.tensor(rng.normal(size=s).astype(dtype))) for s in shapes]


def give(parameters, grads):
    """Gradients by backward; None gives none."""
    total = sum((p * smelt.tensor(g)).sum() for p, g in zip(parameters, grads) if g is not None)
    total.backward()


def draw(rng, parameters, missing=0.0):
    grads = [
        None if rng.random() < missing else (rng.normal(size=p.shape) * 10 ** rng.uniform(-2, 1)).astype(p.dtype.name)
        for p in parameters
    ]
    if all(g is None for g in grads):
        grads[0] = np.ones(parameters[0].shape, parameters[0].dtype.name)
    return grads


def states(opt):
    """State tensors of each parameter, in order."""
    state = opt.state_dict()["state"]
    names = [name for group in opt.groups for name in group.names]
    return [{kind: state[kind][name] for kind in state} for name in names]


def run(opt, parameters, references, rng, steps, missing=0.0):
    for _ in range(steps):
        grads = draw(rng, parameters, missing)
        opt.zero_grad()
        give(parameters, grads)
        opt.step()
        for reference, g in zip(references, grads):
            reference.step(opt.steps, g)


def check_all(opt, parameters, references):
    for i, (p, r, s) in enumerate(zip(parameters, references, states(opt))):
        r.check(p, s, f"parameter {i} {p.shape}")


# ---------------------------------------------------------------------------------------------------------- the updates


@pytest.mark.parametrize("dtype", UNIT)
@pytest.mark.parametrize("kind", KINDS)
def test_against_reference(kind, dtype, isa, rng):
    cls, options = KINDS[kind]
    parameters = make_parameters(rng, dtype)
    start = [p.detach().numpy().astype(np.float64) for p in parameters]
    references = [Reference(cls, options, s, UNIT[dtype]) for s in start]
    opt = cls(parameters, **options)
    run(opt, parameters, references, rng, 120, missing=0.2)
    check_all(opt, parameters, references)
    assert opt.steps == 120
    # The bound is of use: far smaller than the way that was gone.
    way = max(np.abs(r.p - s).max(initial=0) for r, s in zip(references, start))
    assert max(r.ep.max(initial=0) for r in references) <= 0.01 * way


def test_mixed_dtypes_and_groups(rng):
    parameters = make_parameters(rng, "float32", [(5,), (64, 3)]) + make_parameters(rng, "float64", [(9,), (33,)])
    own = [{"lr": 0.1}, {"lr": 0.02, "momentum": 0.5}, {"weight_decay": 0.2}, {"momentum": 0.3, "lr": 0.0}]
    common = {"lr": 0.05, "momentum": 0.9}
    opt = optim.SGD([{"params": [p], **o} for p, o in zip(parameters, own)], **common)
    references = [
        Reference(optim.SGD, {**common, **o}, p.detach().numpy().astype(np.float64), UNIT[p.dtype.name])
        for p, o in zip(parameters, own)
    ]
    run(opt, parameters, references, rng, 20, missing=0.1)
    check_all(opt, parameters, references)
    assert [g.lr for g in opt.groups] == [0.1, 0.02, 0.05, 0.0] and opt.lr == 0.1
    opt.lr = 0.01
    opt.groups[3].lr = 0.03
    for r, lr in zip(references, (0.01, 0.01, 0.01, 0.03)):
        r.o["lr"] = lr
    run(opt, parameters, references, rng, 20)
    check_all(opt, parameters, references)


def test_group_added_in_the_middle(rng):
    parameters = make_parameters(rng, shapes=[(5,), (70,)])
    opt = optim.AdamW(parameters[:1], lr=0.01)
    references = [Reference(optim.AdamW, {"lr": 0.01}, p.detach().numpy(), UNIT["float32"]) for p in parameters]
    run(opt, parameters[:1], references[:1], rng, 5)
    opt.add_group(parameters[1:], lr=0.5)
    references[1].o["lr"] = 0.5
    run(opt, parameters, references, rng, 5)
    check_all(opt, parameters, references)


@pytest.mark.parametrize("cls", [optim.SGD, optim.AdamW])
def test_bits_do_not_depend_on_threads_or_neighbours(cls, rng):
    start, seed = [rng.normal(size=s).astype("float32") for s in SHAPES], 5
    results = []
    for threads, count in ((1, 7), (2, 7), (3, 7), (2, 1)):
        smelt.set_num_threads(threads)
        parameters = [nn.Parameter(smelt.tensor(s)) for s in start[-count:]]
        opt = cls(parameters, lr=0.01)
        for _ in range(4):
            own = np.random.default_rng(seed)
            grads = [own.normal(size=s.shape).astype("float32") for s in start]
            give(parameters, grads[-count:])
            opt.step()
        results.append(parameters[-1].detach().numpy())
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


# -------------------------------------------------------------------------------------------------- gradients and stamps


def test_stamps():
    layer = nn.Linear(3, 1)
    opt = optim.SGD(layer.parameters(), lr=0.0)
    x = smelt.tensor([[1.0, 2.0, 3.0]])

    def backward():
        layer(x).sum().backward()
        return layer.weight.grad.tolist()[0]

    with pytest.raises(RuntimeError, match=r"optimizer: step\(\) needs at least one gradient, got none"):
        opt.step()
    assert opt.steps == 0 and layer.weight.grad is None
    for _ in range(3):  # before packing, and after it
        assert backward() == [1, 2, 3]
        assert backward() == [2, 4, 6]  # two backwards of one step add up
        opt.zero_grad()
        assert layer.weight.grad is None and layer.bias.grad is None
        with pytest.raises(RuntimeError, match="needs at least one gradient"):
            opt.step()
        assert backward() == [1, 2, 3]
        opt.step()
        assert layer.weight.grad.tolist()[0] == [1, 2, 3]  # stale, readable
        with pytest.raises(RuntimeError, match="needs at least one gradient"):
            opt.step()
        assert backward() == [1, 2, 3]  # starts afresh without zero_grad
        opt.step()
    assert opt.steps == 6


def test_parameters_without_gradient_are_skipped(rng):
    used, unused = make_parameters(rng, shapes=[(70,), (70,)])
    before = unused.detach().numpy().copy()
    opt = optim.AdamW([("used", used), ("unused", unused)], lr=0.1, weight_decay=0.5)
    (used * 2).sum().backward()
    opt.step()
    opt.zero_grad()
    (used * 2).sum().backward()
    opt.step()
    np.testing.assert_array_equal(unused.detach().numpy(), before)  # no decay either, as if it were not there
    state = opt.state_dict()["state"]
    assert not state["exp_avg"]["unused"].any().item() and state["exp_avg"]["used"].all().item()


def test_assigned_gradients_and_hooks_count():
    p = nn.Parameter(smelt.tensor([1.0, 2.0]))
    opt = optim.SGD([p], lr=0.5)
    for _ in range(2):  # before and after packing
        p.grad = smelt.tensor([2.0, 4.0])
        opt.step()
    assert p.tolist() == [-1.0, -2.0]
    p.register_hook(lambda g: g * 10)
    p.sum().backward()
    opt.step()
    assert p.tolist() == [-6.0, -7.0]


def test_a_step_makes_older_graphs_raise():
    layer = nn.Linear(2, 2)
    opt = optim.SGD(layer.parameters(), lr=0.1)
    x = smelt.tensor([[1.0, 2.0]], requires_grad=True)
    layer(x).sum().backward()
    opt.step()
    late = layer(x).sum()
    layer(x).sum().backward()
    opt.step()
    with pytest.raises(RuntimeError):
        late.backward()  # the input's gradient would need the weight as it was


# --------------------------------------------------------------------------------------------------------------- packing


def test_packing_keeps_objects_and_shares_memory(rng):
    m = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))
    parameters, views = list(m.parameters()), m.state_dict()
    opt = optim.SGD(m.parameters(), lr=0.1)
    m(smelt.randn(4, 5)).sum().backward()
    opt.step()
    assert all(p is q for p, q in zip(m.parameters(), parameters))
    for name, p in m.named_parameters():
        np.testing.assert_array_equal(views[name].numpy(), p.detach().numpy())  # taken before the step
    addresses = [p._address() for p in parameters]
    for p, at, following in zip(parameters, addresses, addresses[1:]):
        assert following - at == -(-p.size * 4 // 256) * 256  # one buffer, order of registration, 256-byte segments
    with smelt.no_grad():
        parameters[0].assign_(smelt.ones(7, 5))
    assert (m.state_dict()["0.weight"] == 1).all().item()


@pytest.mark.parametrize("export", [lambda p: p.detach().numpy(), lambda p: np.from_dlpack(p.detach())])
def test_live_export_makes_packing_raise(export):
    m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    opt = optim.SGD(m.parameters(), lr=1.0)
    m(smelt.ones(1, 2)).sum().backward()
    view = export(m[1].weight)
    before = view.copy()
    with pytest.raises(
        RuntimeError, match=r"parameter '1.weight' is moved into a flat buffer now, but 1 NumPy or DLPack"
    ):
        opt.step()
    np.testing.assert_array_equal(view, before)
    assert opt.steps == 0
    del view
    gc.collect()
    opt.step()
    assert (m[1].weight.detach().numpy() != before).any()
    view = export(m[1].weight)  # afterwards a view is welcome and follows
    m(smelt.ones(1, 2)).sum().backward()
    opt.step()
    np.testing.assert_array_equal(view, m[1].weight.detach().numpy())


def test_a_parameter_belongs_to_one_optimizer():
    m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    opt = optim.SGD(m[0].parameters(), lr=0.1)
    other = optim.AdamW(m[1].parameters())  # other parameters of one model: fine
    with pytest.raises(ValueError, match=r"'0.weight' already belongs to another optimizer; call release"):
        optim.SGD(m.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"'1.bias' already belongs to another optimizer; call release"):
        opt.add_group([m[1].bias])
    m(smelt.ones(1, 2)).sum().backward()
    opt.step()
    other.step()
    weight = m[0].weight.detach().numpy().copy()
    del opt
    gc.collect()
    again = optim.SGD(m[0].parameters(), lr=0.1)  # free again, with its value
    np.testing.assert_array_equal(m[0].weight.detach().numpy(), weight)
    again.zero_grad()
    m(smelt.ones(1, 2)).sum().backward()
    grad = m[0].weight.grad.numpy().copy()
    again.step()
    np.testing.assert_allclose(m[0].weight.detach().numpy(), weight - 0.1 * grad, rtol=4 * 2.0**-24, atol=2.0**-26)


def test_a_refused_group_leaves_no_trace():
    a, b = nn.Parameter(smelt.ones(3)), nn.Parameter(smelt.ones(3))
    opt = optim.SGD([("a", a)], lr=0.5)
    with pytest.raises(ValueError, match="parameter 'b' is given twice"):
        opt.add_group([("b", b), ("b", b)])
    with pytest.raises(ValueError, match="parameter 'a' is given twice"):
        opt.add_group([("b", b), ("a", a)])
    with pytest.raises(TypeError, match="optimizer: parameter 'c' must be float32 or float64, got int64"):
        opt.add_group([("b", b), ("c", smelt.tensor([1, 2]))])
    with pytest.raises(TypeError, match="SGD: parameters must be tensors, got float"):
        opt.add_group([1.0])
    assert len(opt.groups) == 1 and len(opt.state_dict()["groups"]) == 1
    opt.add_group([("b", b)], lr=0.25)  # still free
    (a + b).sum().backward()
    opt.step()
    assert a.tolist() == [0.5] * 3 and b.tolist() == [0.75] * 3


def test_two_parameters_on_one_memory_are_refused():
    a = nn.Parameter(smelt.ones(3))
    b = nn.Parameter(a)
    with pytest.raises(ValueError, match="parameters 'a' and 'b' share memory"):
        optim.SGD([("a", a), ("b", b)], lr=0.1)


def test_tied_parameters_are_one_segment(rng):
    class Tied(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    m = Tied()
    opt = optim.SGD(m.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        m(smelt.randn(2, 3)).sum().backward()
        opt.step()
    assert m.second.weight is m.first.weight and opt.groups[0].names == ["first.weight"]
    np.testing.assert_array_equal(m.state_dict()["second.weight"].numpy(), m.state_dict()["first.weight"].numpy())


# ------------------------------------------------------------------------------------------------- freezing, other dtypes


@pytest.mark.parametrize("kind", ["momentum", "adamw"])
def test_freezing_keeps_values_and_state(kind, rng):
    cls, options = KINDS[kind]
    m = nn.Sequential(nn.Linear(9, 8), nn.Linear(8, 3))
    parameters = list(m.parameters())
    references = [Reference(cls, options, p.detach().numpy(), UNIT["float32"]) for p in parameters]
    opt = cls(m.named_parameters(), **options)
    nn.freeze(m[1])  # frozen at packing: stays outside
    for frozen in (slice(2, 4), slice(0, 0), slice(0, 2), slice(0, 0)):
        nn.unfreeze(m)
        for p in parameters[frozen]:
            p.requires_grad = False
        values = [p.detach().numpy().copy() for p in parameters[frozen]]
        for _ in range(5):
            grads = draw(rng, parameters)
            grads[frozen] = [None] * len(grads[frozen])
            opt.zero_grad()
            give(parameters, grads)
            opt.step()
            for reference, g in zip(references, grads):
                reference.step(opt.steps, g)
        for p, v in zip(parameters[frozen], values):
            np.testing.assert_array_equal(p.detach().numpy(), v)
        assert all(p is q for p, q in zip(m.parameters(), parameters))
        check_all(opt, parameters, references)


def test_changing_the_dtype_keeps_the_state(rng):
    m = nn.Linear(4, 3)
    parameters = list(m.parameters())
    references = [Reference(optim.Adam, {}, p.detach().numpy(), UNIT["float32"]) for p in parameters]
    opt = optim.Adam(parameters)
    run(opt, parameters, references, rng, 5)
    m.double()
    run(opt, parameters, references, rng, 5)
    check_all(opt, parameters, references)
    assert m.weight.dtype == "float64" and opt.steps == 10


# -------------------------------------------------------------------------------------------------------------- clipping


@pytest.mark.parametrize("dtype", UNIT)
def test_clipping(dtype, rng):
    parameters = make_parameters(rng, dtype)
    start = [p.detach().numpy().astype(np.float64) for p in parameters]
    opt = optim.SGD(parameters, lr=1.0, clip_norm=2.0)
    assert math.isnan(opt.grad_norm)
    grads = draw(rng, parameters)
    norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads))
    n, unit = sum(g.size for g in grads), UNIT[dtype]
    give(parameters, grads)
    opt.step()
    # A sum of n squares in any order: a relative error of n units at most, half of it after the root.
    assert abs(opt.grad_norm - norm) <= (n / 2 + 2) * unit * norm
    for p, s, g in zip(parameters, start, grads):
        step = g.astype(np.float64) * (2.0 / norm)
        limit = (n / 2 + 8) * unit * np.abs(step) + 2 * unit * np.abs(s)
        assert (np.abs(p.detach().numpy() - (s - step)) <= limit).all()
    before = [p.detach().numpy().astype(np.float64) for p in parameters]
    small = [g * np.array(1 / norm, g.dtype) for g in grads]  # norm 1: not clipped, not scaled
    opt.zero_grad()
    give(parameters, small)
    opt.step()
    for p, s, g in zip(parameters, before, small):
        np.testing.assert_array_equal(p.detach().numpy(), (s - g).astype(dtype))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["momentum", "adamw"])
def test_clipping_skips_steps_that_are_not_finite(kind, bad, rng):
    cls, options = KINDS[kind]
    parameters = make_parameters(rng)
    opt = cls(parameters, clip_norm=1.0, **options)
    give(parameters, draw(rng, parameters))
    opt.step()
    before = [p.detach().numpy().copy() for p in parameters]
    state = [{k: v.numpy().copy() for k, v in s.items()} for s in states(opt)]
    grads = draw(rng, parameters)
    grads[-1][-1, -1] = bad
    give(parameters, grads)
    opt.step()
    assert opt.skipped_steps == 1 and not math.isfinite(opt.grad_norm)
    for p, b, s, old in zip(parameters, before, states(opt), state):
        np.testing.assert_array_equal(p.detach().numpy(), b)
        for k in old:
            np.testing.assert_array_equal(s[k].numpy(), old[k])
    give(parameters, draw(rng, parameters))
    opt.step()
    assert opt.skipped_steps == 1 and (parameters[-1].detach().numpy() != before[-1]).any()


def test_large_gradients_are_clipped_not_skipped():
    """Their squares are beyond float32, their norm is not."""
    p = nn.Parameter(smelt.zeros(3))
    opt = optim.SGD([p], lr=1.0, clip_norm=7.0)
    (p * smelt.tensor([2e30, 3e30, -6e30])).sum().backward()
    opt.step()
    assert opt.skipped_steps == 0 and opt.grad_norm == pytest.approx(7e30, rel=2.0**-22)
    assert p.tolist() == pytest.approx([-2, -3, 6], rel=2.0**-22)  # some roundings to float32


def test_norm_counts_filled_gradients_alone():
    a, b = nn.Parameter(smelt.zeros(2)), nn.Parameter(smelt.zeros(2))
    opt = optim.SGD([a, b], lr=1.0, clip_norm=100.0)
    ((a * smelt.tensor([3.0, 4.0])).sum() + (b * 1000).sum()).backward()
    opt.step()
    (a * smelt.tensor([3.0, 4.0])).sum().backward()
    opt.step()
    assert opt.grad_norm == 5.0
    assert a.tolist() == pytest.approx([-3 - 300 / 1414.23, -4 - 400 / 1414.23], rel=1e-5)  # from the norm in 6 digits


def test_release():
    m = nn.Linear(2, 1)
    old = optim.Adam(m.parameters(), lr=0.1)
    m(smelt.ones(1, 2)).sum().backward()
    old.step()
    weight = m.weight.detach().numpy().copy()
    old.release()
    new = optim.SGD(m.parameters(), lr=0.1)
    np.testing.assert_array_equal(m.weight.detach().numpy(), weight)
    m(smelt.ones(1, 2)).sum().backward()
    new.step()
    np.testing.assert_allclose(m.weight.detach().numpy(), weight - np.float32(0.1), rtol=2.0**-22)
    with pytest.raises(RuntimeError, match=r"optimizer: release\(\) was called"):
        old.step()


def test_one_memory_has_one_optimizer():
    p = nn.Parameter(smelt.ones(3))
    q = nn.Parameter(p.detach())
    first = optim.SGD([p], lr=0.1)
    with pytest.raises(ValueError, match="shares its memory with a parameter of another optimizer"):
        optim.SGD([q], lr=0.1)
    first.release()
    optim.SGD([q], lr=0.1)


def test_views_of_frozen_parameters_do_not_matter():
    m = nn.Linear(2, 2)
    m.weight.requires_grad = False
    view = m.weight.numpy()
    opt = optim.SGD(m.parameters(), lr=0.1)
    m(smelt.ones(1, 2)).sum().backward()
    opt.step()
    m.weight.requires_grad = True  # now it would move
    m(smelt.ones(1, 2)).sum().backward()
    with pytest.raises(RuntimeError, match="'weight' is moved into a flat buffer now, but 1 NumPy"):
        opt.step()
    del view
    opt.step()


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer owns the address space")
def test_no_memory_to_pack_leaves_everything_as_it_was():
    done = python("""
import resource
import numpy as np, smelt
from smelt import nn, optim
a, b = nn.Parameter(smelt.ones(1 << 20)), nn.Parameter(smelt.ones(1 << 20))
opt = optim.AdamW([a, b], lr=0.1)
b.requires_grad = False
(a * 1).sum().backward()
opt.step()
b.requires_grad = True
((a * 1).sum() + (b * 1).sum()).backward()
smelt.empty_cache()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limits = resource.getrlimit(resource.RLIMIT_AS)
for extra in range(1, 60, 4):
    resource.setrlimit(resource.RLIMIT_AS, (used + (extra << 20), limits[1]))
    try:
        opt.step()
        break
    except MemoryError as error:
        assert "optimizer: cannot allocate" in str(error), error
        failed = True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        smelt.empty_cache()
assert failed
assert np.isfinite(a.detach().numpy()).all() and (b.detach().numpy() != 1).all()
print("ok")
""")
    assert done.strip() == "ok"
