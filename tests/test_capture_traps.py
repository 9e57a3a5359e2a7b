"""What could make a replay silently another step: each case runs a function as it is, and captured, with the same bits."""

import collections
import random
import threading
from dataclasses import dataclass

import numpy as np
import pytest

import smelt
from smelt import _changes, _core, nn, optim


def both(make, calls):
    """Results of calls of the function that `make` gives, plain and captured; `calls` is given the function."""
    results = []
    for wrap in (lambda f: f, smelt.capture):
        smelt.manual_seed(0)
        random.seed(0)
        f = wrap(make())
        results.append(calls(f))
    return results[0], results[1], f


def values(f, inputs):
    return [f(x).tolist() for x in inputs]


ONE = [smelt.ones(2)] * 8


# ------------------------------------------------------------------------------------------------------------ inputs


def test_a_transposed_target_of_the_trainer():
    def run(off):
        smelt.manual_seed(0)
        trainer = smelt.Trainer(nn.Linear(4, 4), loss="mse", lr=0.1)
        trainer._recorder.off = off
        a, b = smelt.randn(4, 4), smelt.randn(4, 4)
        return [trainer.step(a.T, b.T).item() for _ in range(6)], trainer

    plain, _ = run("a test")
    recorded, trainer = run(None)
    assert plain == recorded and trainer.recording.startswith("recorded: ")


def test_an_input_that_wants_a_gradient_has_no_plan():
    layer = nn.Linear(2, 2)
    step = smelt.capture(lambda x: layer(x).sum().backward())
    for _ in range(4):
        step(smelt.ones(1, 2))
    assert step.plans
    x = smelt.ones(1, 2).requires_grad_()
    step(x)
    assert x.grad is not None
    double = smelt.capture(lambda x: x * 2)
    for _ in range(4):
        double(smelt.ones(2))
    assert double(smelt.ones(2).requires_grad_()).requires_grad


def test_minus_zero_is_another_constant():
    step = smelt.capture(lambda x, s: x * s)
    for _ in range(4):
        step(smelt.ones(1), 0.0)
    assert np.signbit(step(smelt.ones(1), -0.0).numpy()).all()


def test_named_tuples():
    Pair = collections.namedtuple("Pair", "x y")
    step = smelt.capture(lambda p: Pair(p.x + p.y, p.x))
    for i in range(5):
        out = step(Pair(smelt.full((2,), float(i)), np.ones(2, "float32")))
        assert type(out) is Pair and out.x.tolist() == [i + 1.0] * 2
    assert step.plans


def test_objects_as_arguments():
    @dataclass(eq=False)
    class Options:
        scale: float

    options = Options(2.0)
    step = smelt.capture(lambda x, o: x * o.scale)
    for _ in range(4):
        step(smelt.ones(1), options)
    assert step.plans
    options.scale = 3.0
    assert step(smelt.ones(1), options).item() == 3


# ------------------------------------------------------------------------------------- what Python reads in the step


@pytest.mark.parametrize("kind", ["set lr", "steps", "read lr", "option"])
def test_the_optimizer_read_or_set_in_the_step(kind):
    def make():
        layer = nn.Linear(2, 1)
        with smelt.no_grad():
            layer.weight.copy_(smelt.ones(1, 2))
        opt = optim.SGD(layer.parameters(), lr=0.1)

        def step(x):
            opt.zero_grad()
            layer(x).sum().backward()
            if kind == "set lr":
                opt.lr = 0.1 / (1 + opt.steps)
            opt.step()
            with smelt.no_grad():
                if kind == "steps" and opt.steps % 4 == 0:
                    layer.weight.copy_(layer.weight * 0.5)
                if kind == "read lr":
                    layer.weight.copy_(layer.weight * opt.lr)
                if kind == "option":
                    layer.weight.copy_(layer.weight * opt.groups[0].lr)
            return layer.weight.detach().copy()

        step.opt = opt
        return step

    def calls(f):
        out = []
        opt = f.opt
        for i in range(12):
            opt.lr = 0.1 / (1 + i)
            out.append(f(smelt.ones(1, 2)).tolist())
        return out

    plain, captured, step = both(make, calls)
    assert plain == captured
    assert "of an optimizer" in step.recording and not step.plans


def test_the_count_of_the_trainer():
    class Decays:
        def __init__(self):
            self.scale = 1.0

        def __call__(self, outputs, targets):
            return smelt.losses.mse_loss(outputs, targets) / (1 + self.trainer.steps)

    def run(off):
        smelt.manual_seed(0)
        loss = Decays()
        trainer = smelt.Trainer(nn.Linear(2, 2), loss=loss, lr=0.1)
        trainer._recorder.off, loss.trainer = off, trainer
        return [trainer.step(smelt.ones(1, 2), smelt.zeros(1, 2)).item() for _ in range(8)]

    assert run("a test") == run(None)


def test_attributes_of_a_loss_and_a_loss_that_does_not_hash():
    @dataclass
    class Scaled:
        scale: float = 1.0

        def __call__(self, outputs, targets):
            return smelt.losses.mse_loss(outputs, targets) * self.scale

    trainer = smelt.Trainer(nn.Linear(2, 2), loss=Scaled(), lr=0.0)
    first = [trainer.step(smelt.ones(1, 2), smelt.zeros(1, 2)).item() for _ in range(5)]
    assert trainer.recording.startswith("recorded: ")
    trainer.loss.scale = 100.0
    assert trainer.step(smelt.ones(1, 2), smelt.zeros(1, 2)).item() == pytest.approx(100 * first[0])


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.on, self.scale, self.array = [1.0], 0.0, np.ones(1)

    def forward(self, x):
        return x * sum(self.on) * float(self.array[0]) + self.scale


@pytest.mark.parametrize("change", ["list", "array", "sign", "same list"])
def test_attributes_that_are_written_in_place(change):
    module = Listed()
    step = smelt.capture(lambda x: module(x * 0 if change == "sign" else x))
    for _ in range(4):
        step(smelt.ones(1))
    assert step.plans
    if change == "list":
        module.on += [4.0]
    elif change == "same list":
        items = module.on
        items.append(4.0)
        module.on = items
    elif change == "array":
        module.array *= 5
    else:
        module.scale = -0.0
    now = step(smelt.ones(1))
    assert now.item() == (0 if change == "sign" else 5)
    if change == "sign":
        assert step.function(smelt.ones(1)).tolist() == now.tolist()


def test_a_branch_on_whether_there_is_a_gradient():
    p = nn.Parameter(smelt.ones(1))
    step = smelt.capture(lambda x: x * 1 if p.grad is None else x + p.grad)
    for _ in range(4):
        assert step(smelt.ones(1)).item() == 1
    assert step.plans
    (p * 3).sum().backward()
    for _ in range(4):
        assert step(smelt.ones(1)).item() == 4
    p.grad = None
    assert step(smelt.ones(1)).item() == 1


class Noisy(nn.Module):
    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, x):
        return x * 2 if self.generator.random() < 0.5 else x


@pytest.mark.parametrize("generator", [random.Random, np.random.default_rng])
@pytest.mark.parametrize("where", ["module", "closure"])
def test_generators_that_are_not_the_global_ones(generator, where):
    def make():
        own = generator(1)
        module = Noisy(own)
        return (lambda x: module(x)) if where == "module" else (lambda x: x * 2 if own.random() < 0.5 else x)

    plain, captured, step = both(make, lambda f: values(f, [smelt.ones(1)] * 30))
    assert plain == captured
    assert "random generator that is not smelt's" in step.recording


def test_dropout_in_two_threads():
    """Each thread's backward draws the mask of its own forward, whatever the others draw meanwhile."""
    wrong = []

    def work():
        layer, opt_layer = nn.Dropout(0.5), nn.Linear(4, 4)
        opt = optim.SGD(opt_layer.parameters(), lr=0.1)
        for _ in range(60):
            x = smelt.ones(20_000).requires_grad_()
            y = layer(x)
            y.sum().backward()
            if not np.array_equal(y.detach().numpy(), x.grad.numpy()):
                wrong.append(1)
            opt.zero_grad()
            opt_layer(smelt.ones(2, 4)).sum().backward()
            opt.step()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_captured_step_with_dropout_in_another_thread():
    step = smelt.capture(lambda x: smelt.dropout(x, 0.5))
    results = {}

    def work(name):
        smelt.manual_seed(3)
        results[name] = [step(smelt.ones(50)).tolist() for _ in range(6)]

    for name in ("first", "second"):
        t = threading.Thread(target=work, args=(name,))
        t.start()
        t.join()
    work("main")
    assert results["first"] == results["second"] == results["main"]


# ------------------------------------------------------------------------------------------- states that stay behind


def test_a_function_that_calls_itself():
    def f(x, n):
        return x if n == 0 else captured(x * 2, n - 1)

    captured = smelt.capture(f)
    for _ in range(5):
        assert captured(smelt.ones(1), 3).item() == 8
    assert not _core.recording() and _changes.recordings == 0 and captured.plans


def test_nothing_stays_behind_after_an_interrupt():
    def stop(x):
        raise KeyboardInterrupt

    step = smelt.capture(stop)
    with pytest.raises(KeyboardInterrupt):
        step(smelt.ones(1))
    assert not _core.recording() and _changes.recordings == 0


@pytest.mark.parametrize("how", ["itself", "detached"])
def test_a_result_that_is_also_kept(how):
    kept = []

    def f(x):
        y = x * 2
        kept.append(y if how == "itself" else y.detach())
        return y

    step = smelt.capture(f)
    for _ in range(6):
        step(smelt.ones(1))
    assert len(kept) == 6
    assert step.recording == "not recorded: a tensor that it gives back is also kept elsewhere"


def test_more_kinds_of_inputs_than_plans():
    step = smelt.capture(lambda x: x * 2)
    for _ in range(20):
        for n in range(1, 13):
            assert step(smelt.ones(n)).shape == (n,)
    assert step.recording == "not recorded: its inputs come in more kinds than the 8 of which plans are kept"


def test_options_of_the_optimizer_by_name():
    layer = nn.Linear(2, 2)
    opt = optim.AdamW([{"params": [layer.weight]}, {"params": [layer.bias], "weight_decay": 0.5}])
    assert opt.weight_decay == 0.01
    opt.weight_decay = 0.25
    assert [g.weight_decay for g in opt.groups] == [0.25, 0.25]
    with pytest.raises(ValueError, match="AdamW: weight_decay must be at least 0"):
        opt.weight_decay = -1
    with pytest.raises(AttributeError, match="AdamW: has no attribute 'momentum'"):
        opt.momentum  # noqa: B018


def test_methods():
    class Model:
        def __init__(self):
            self.layer = nn.Linear(2, 2)

        @smelt.capture
        def run(self, x):
            return self.layer(x).detach()

    model = Model()
    x = smelt.ones(1, 2)
    for _ in range(4):
        out = model.run(x)
    assert out.tolist() == model.layer(x).tolist() and Model.run.plans


# ----------------------------------------------------------------------------------------------- keeping the plans


def test_other_models_leave_plans_alone():
    layer = nn.Linear(2, 2)
    step = smelt.capture(lambda x: layer(x).detach())
    for _ in range(10):
        step(smelt.ones(1, 2))
        nn.Linear(3, 3)
        smelt.ones(1).requires_grad_()
    assert step.recording.endswith("8 replays")


def test_checkpoints_leave_plans_alone(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(70, 4)).astype("float32"), np.arange(70) % 2
    trainer = smelt.Trainer(nn.Linear(4, 2))
    trainer.fit((x, y), epochs=5, batch_size=8, out=tmp_path / "run", checkpoint_every=2)
    assert trainer.recording.startswith("recorded: ")
    assert int(trainer.recording.split()[-2]) >= 30


def test_comparing_all_the_time_ends():
    layer = nn.Sequential(nn.Linear(2, 2))
    step = smelt.capture(lambda x: layer(x).detach())
    for _ in range(40):
        layer.eval()
        layer.train()
        step(smelt.ones(1, 2))
    assert step.recording == "not recorded: attributes of modules or modes change before each of its runs"


# ----------------------------------------------------------------------------------------------------------- results


def test_results_of_the_first_runs_are_copies_too():
    p = nn.Parameter(smelt.ones(1))
    step = smelt.capture(lambda x: (x, p.detach()))
    x = np.zeros(1, "float32")
    kept = []
    for i in range(5):
        x[0] = i
        with smelt.no_grad():
            p.copy_(smelt.full((1,), 10.0 * i))
        kept.append(step(x))
    assert [(a.item(), b.item()) for a, b in kept] == [(float(i), 10.0 * i) for i in range(5)]


def test_transposed_and_foreign_results():
    step = smelt.capture(lambda x: (x * 2).T)
    x = smelt.tensor([[1.0, 2.0, 3.0]])
    for _ in range(4):
        assert step(x).tolist() == [[2.0], [4.0], [6.0]]
    assert step.plans
    array = smelt.capture(lambda x: np.ones(2))
    for _ in range(5):
        assert isinstance(array(x), np.ndarray)
    assert array.recording == "not recorded: it gives back a ndarray, which a replay cannot make"


def test_a_plan_hears_what_modules_say():
    class Own(nn.Module):
        recordable = False

        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="here Own has recordable = False"):
        smelt.Trainer(nn.Sequential(nn.Linear(2, 2), Own())).plan(4)
    random.seed(5)
    before = random.getstate()
    noisy = Noisy(random)  # the module itself: the global generator
    smelt.Trainer(nn.Sequential(nn.Linear(2, 2), noisy)).plan(4)
    assert random.getstate() == before
