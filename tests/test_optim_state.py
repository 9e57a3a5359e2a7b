"""Options of optimizers, good and bad, and their state: saved, taken over, refused."""

import numpy as np
import pytest

import smelt
from smelt import nn, optim
from tests.test_optim import KINDS, draw, give, states


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD([], lr=0.1), "SGD: needs at least one parameter, got none"),
        (lambda p: optim.SGD(p, lr=-0.1), "SGD: lr must be at least 0, got -0.1"),
        (lambda p: optim.SGD(p, lr=float("nan")), "SGD: lr must be a finite number, got nan"),
        (lambda p: optim.SGD(p, lr=float("inf")), "SGD: lr must be a finite number, got inf"),
        (lambda p: optim.SGD(p, lr=10**400), f"SGD: lr must be a finite number, got {10**400}"),
        (lambda p: optim.SGD(p, lr="x"), "SGD: lr must be a finite number, got 'x'"),
        (lambda p: optim.SGD(p, lr=True), "SGD: lr must be a finite number, got True"),
        (lambda p: optim.SGD(p, momentum=None), "SGD: momentum must be a finite number, got None"),
        (lambda p: optim.SGD(p, weight_decay=float("inf")), "SGD: weight_decay must be a finite number, got inf"),
        (lambda p: optim.Adam(p, eps=float("inf")), "Adam: eps must be a finite number, got inf"),
        (lambda p: optim.AdamW(p, betas=(0.9,)), "AdamW: betas must be two numbers, got (0.9,)"),
        (lambda p: optim.AdamW(p, betas=0.9), "AdamW: betas must be two numbers, got 0.9"),
        (lambda p: optim.AdamW(p, betas=(0.9, "x")), "AdamW: betas must be a finite number, got 'x'"),
        (
            lambda p: optim.AdamW([{"params": p, "betas": [0.9, 0.99, 0.999]}]),
            "AdamW: betas must be two numbers, got [0.9, 0.99, 0.999]",
        ),
        (lambda p: optim.SGD(p, momentum=1.0), "SGD: momentum must be in [0, 1), got 1.0"),
        (lambda p: optim.SGD(p, nesterov=True), "SGD: nesterov needs momentum above 0, got 0"),
        (lambda p: optim.Adam(p, betas=(0.9, 1.0)), "Adam: betas must be in [0, 1), got 1.0"),
        (lambda p: optim.Adam(p, eps=-1.0), "Adam: eps must be at least 0, got -1.0"),
        (lambda p: optim.AdamW(p, weight_decay=-1.0), "AdamW: weight_decay must be at least 0, got -1.0"),
        (lambda p: optim.AdamW(p, clip_norm=-1.0), "AdamW: clip_norm must be above 0, or None, got -1.0"),
        (lambda p: optim.SGD(p, clip_norm=0), "SGD: clip_norm must be above 0, or None, got 0"),
        (lambda p: optim.SGD(p, clip_norm=float("nan")), "SGD: clip_norm must be above 0, or None, got nan"),
        (lambda p: optim.SGD(p, clip_norm="1"), "SGD: clip_norm must be above 0, or None, got '1'"),
        (
            lambda p: optim.AdamW([{"params": p, "rate": 1}]),
            "AdamW: a group needs 'params' and may have lr, betas, eps, weight_decay, got 'params', 'rate'",
        ),
        (
            lambda p: optim.SGD([{"lr": 1}]),
            "SGD: a group needs 'params' and may have lr, momentum, weight_decay, got 'lr'",
        ),
        (
            lambda p: optim.get("rmsprop", p),
            "optimizer: must be one of sgd, adam, adamw, got 'rmsprop'",
        ),
    ],
)
def test_option_errors(make, message):
    with pytest.raises(ValueError) as caught:
        make([nn.Parameter(smelt.ones(2))])
    assert str(caught.value) == message


def test_options_set_later_are_used_or_refused():
    a, b = nn.Parameter(smelt.ones(2)), nn.Parameter(smelt.ones(2))
    opt = optim.SGD([a], lr=0.1)
    with pytest.raises(ValueError, match="SGD: momentum must be 0 in an optimizer made without it"):
        opt.add_group([b], momentum=0.9)
    opt.add_group([b])
    with pytest.raises(ValueError, match="SGD: momentum must be 0 in an optimizer made without it"):
        opt.groups[0].momentum = 0.9
    assert opt.groups[0].momentum == 0.0
    a.sum().backward()
    with pytest.raises(ValueError, match="SGD: lr must be at least 0, got -1"):
        opt.groups[0].lr = -1.0
    opt.groups[0].lr = 0.5
    opt.step()
    assert a.tolist() == [0.5, 0.5]
    with pytest.raises(AttributeError, match="'learning_rate'"):
        opt.groups[0].learning_rate = 0.1
    with pytest.raises(ValueError, match="SGD: lr must be at least 0"):
        opt.lr = -1

    for value in ("x", float("inf"), None):
        with pytest.raises(ValueError, match=f"SGD: lr must be a finite number, got {value!r}"):
            opt.lr = value
        with pytest.raises(ValueError, match=f"SGD: lr must be a finite number, got {value!r}"):
            opt.groups[0].lr = value
    with pytest.raises(ValueError, match="SGD: clip_norm must be above 0, or None, got 0"):
        opt.clip_norm = 0
    assert opt.lr == 0.5 and opt.clip_norm is None


def test_an_infinite_norm_measures_and_skips():
    p = nn.Parameter(smelt.zeros(2))
    opt = optim.SGD([p], lr=1.0, clip_norm=float("inf"))
    (p * smelt.tensor([3.0, -4.0])).sum().backward()
    opt.step()
    assert p.tolist() == [-3, 4] and opt.grad_norm == 5
    (p * float("inf")).sum().backward()
    opt.step()
    assert p.tolist() == [-3, 4] and opt.skipped_steps == 1


@pytest.mark.parametrize("given", [nn.Linear(2, 2), smelt.ones(3), 3, None], ids=lambda v: type(v).__name__)
def test_parameters_must_be_a_list(given):
    text = rf"parameters must be a list of tensors, such as model\.parameters\(\), got {type(given).__name__}"
    opt = optim.SGD([nn.Parameter(smelt.ones(2))])
    for call in (lambda: optim.SGD(given), lambda: optim.AdamW(given), lambda: opt.add_group(given)):
        with pytest.raises(TypeError, match=text):
            call()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["before the first step", "after a step"])
def test_state_round_trip(kind, when, rng):
    """A new optimizer that took over the state goes on with the same bits; parameters of one path stay apart."""
    cls, options = KINDS[kind]

    def make():
        smelt.manual_seed(1)
        layers = nn.Linear(5, 4), nn.Linear(5, 4)
        parameters = [p for layer in layers for p in layer.parameters()]
        half = [{"params": parameters[:2], "lr": 0.3}, {"params": parameters[2:]}]
        return parameters, cls(half, clip_norm=5.0, **options)

    a, first = make()
    for _ in range(4):
        give(a, draw(rng, a))
        first.step()
    first.lr = 0.004
    b, second = make()
    if when == "after a step":
        give(b, draw(rng, b))
        second.step()
    for p, q in zip(a, b):
        with smelt.no_grad():
            q.assign_(p.detach())
    second.load_state_dict(first.state_dict())
    assert second.steps == 4 and second.lr == 0.004
    for _ in range(3):
        grads = draw(rng, a)
        for parameters, opt in ((a, first), (b, second)):
            opt.zero_grad()
            give(parameters, grads)
            opt.step()
    for p, q in zip(a, b):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())
    for s, t in zip(states(first), states(second)):
        for name in s:
            np.testing.assert_array_equal(s[name].numpy(), t[name].numpy())


def test_a_state_that_does_not_fit_changes_nothing(rng):
    def make(cls, shape=(3,), **options):
        return cls([("w", nn.Parameter(smelt.ones(shape))), ("b", nn.Parameter(smelt.ones(2)))], **options)

    opt = make(optim.AdamW, lr=0.125)
    good = opt.state_dict()
    bad = [
        ("'exp_avg' of 'w' must have shape", make(optim.AdamW, (4,)).state_dict()),
        ("has no option 'momentum'", make(optim.SGD, lr=1.0, momentum=0.5).state_dict()),
        ("'exp_avg' of parameter 'w' is missing", {**good, "state": {}}),
        (
            "has no 'momentum' of parameter 'w'",
            {**good, "state": {**good["state"], "momentum": good["state"]["exp_avg"]}},
        ),
        ("has 1 groups, the state 2", {**good, "groups": good["groups"] * 2}),
        ("has no option 'momentum'", {**good, "groups": [{**good["groups"][0], "momentum": 0.5}]}),
        ("lr must be at least 0, got -1", {**good, "groups": [{**good["groups"][0], "lr": -1}]}),
        ("lr must be a finite number, got 'x'", {**good, "groups": [{**good["groups"][0], "lr": "x"}]}),
        ("betas must be two numbers", {**good, "groups": [{**good["groups"][0], "betas": [0.9]}]}),
        ("'skipped' must be a whole number of at least 0, got -1", {**good, "skipped": -1}),
        ("needs a dict with 'steps' .* got a dict with 'groups', 'steps'", {"groups": good["groups"]}),
        ("needs a dict with 'steps'", {**good, "groups": {"lr": 1}}),
        ("needs a dict with 'steps'", {**good, "groups": [3]}),
        ("needs a dict with 'steps'", {**good, "state": {"exp_avg": [1]}}),
    ]
    complete = [
        ("got a dict with nothing", {}),
        (r"got \[\]", []),
        ("got None", None),
        ("'steps' must be a whole number of at least 0, got -1", {**good, "steps": -1}),
        ("needs a dict with 'steps'", {**good, "steps": 1.5}),
    ]
    for message, state in [(message, {**state, "steps": 9}) for message, state in bad] + complete:
        with pytest.raises(ValueError, match=f"load_state_dict: .*{message}|AdamW: .*{message}"):
            opt.load_state_dict(state)
        assert opt.steps == 0 and opt.lr == 0.125 and opt.groups[0].options() == good["groups"][0]


def test_repr():
    p = nn.Parameter(smelt.ones(2))
    assert repr(optim.SGD([p], lr=0.1, momentum=0.5)) == "SGD(lr=0.1, momentum=0.5, weight_decay=0.0)"
