"""Recorded steps: replays do what the step does, and whatever could make them differ is seen."""

import gc
import itertools
import random

import numpy as np
import pytest

import smelt
from smelt import losses, nn, optim


def network(dropout=0.3):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(4 * 36, 5)
    )


def batch(rows=16, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 8, 8, 1)).astype("float32"), rng.integers(0, 5, rows)


def optimizers():
    return {
        "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        "adamw": lambda p: optim.AdamW(p, lr=1e-2),
        "clipped": lambda p: optim.Adam(p, lr=1e-2, clip_norm=0.1),
    }


def weights(model):
    return {name: t.numpy().copy() for name, t in model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


def own_step(model, opt, precision="float32"):
    def step(x, y):
        opt.zero_grad()
        with smelt.autocast(precision):
            loss = losses.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return step


def train(steps, recorded, *, kind="adamw", precision="float32", between=lambda i, model, opt: None, build=network):
    """Losses, weights and the captured step of a short run, recorded or not."""
    smelt.manual_seed(3)
    model = build()
    opt = optimizers()[kind](model.parameters())
    step = own_step(model, opt, precision)
    step = smelt.capture(step) if recorded else step
    values = []
    for i in range(steps):
        between(i, model, opt)
        values.append(step(*batch(seed=i % 3)).item())
    return values, weights(model), step


def check_same(steps=12, replays=1, **options):
    gc.collect()  # a model of an earlier test that ends meanwhile would cost a replay
    values, final, _ = train(steps, False, **options)
    recorded_values, recorded_final, step = train(steps, True, **options)
    assert recorded_values == values
    assert_same(final, recorded_final)
    made = int(step.recording.split()[-2]) if step.plans else 0
    assert made >= replays, step.recording
    return step


# ------------------------------------------------------------------------------------------------------------ equality


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["sgd", "adamw", "clipped"])
def test_recorded_steps_give_the_same_bits(kind, threads):
    smelt.set_num_threads(threads)
    check_same(kind=kind, replays=8)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_recorded_steps_give_the_same_bits_in_bf16(threads):
    smelt.set_num_threads(threads)
    check_same(kind="adamw", precision="bf16", replays=6)


def test_recorded_steps_give_the_same_bits_at_every_isa_level(isa):
    check_same(replays=8)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_trainer_records_by_itself(precision, threads):
    smelt.set_num_threads(threads)

    def run(recorded):
        smelt.manual_seed(1)
        trainer = smelt.Trainer(network(), precision=precision, metrics=["accuracy"], schedule="cosine")
        if not recorded:
            trainer._recorder.retry = lambda: setattr(trainer._recorder, "off", "a test")
        x, y = batch(70)
        history = trainer.fit((x, y), validation=batch(20, 5), epochs=4, batch_size=16)
        return (
            [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows],
            weights(trainer.model),
            trainer,
        )

    rows, final, plain = run(False)
    recorded_rows, recorded_final, trainer = run(True)
    assert recorded_rows == rows
    assert_same(final, recorded_final)
    assert plain.recording == "not recorded: a test"
    # Batches of 16 and of 6 rows: each epoch's first step is compared, and so is the last with its own shape.
    assert trainer.recording.startswith("recorded: "), trainer.recording
    assert int(trainer.recording.split()[-2]) >= 8


def test_results_are_fresh_tensors():
    double = smelt.capture(lambda x: x * 2)
    results = [double(np.full(3, float(i), "float32")) for i in range(5)]
    assert [r.tolist() for r in results] == [[2.0 * i] * 3 for i in range(5)]


def test_structures_of_arguments_and_results():
    @smelt.capture
    def step(pair, *, scale, names=("a", "b")):
        x, y = pair["x"], pair["y"][0]
        return {names[0]: x * scale, names[1]: [y + scale, None, 3, "text"]}

    rng = np.random.default_rng(0)
    for i in range(6):
        x, y = rng.normal(size=4).astype("float32"), rng.normal(size=2).astype("float32")
        out = step({"x": x, "y": [smelt.tensor(y)]}, scale=2.0 + i % 2)
        assert list(out) == ["a", "b"]
        assert out["b"][1:] == [None, 3, "text"]
        np.testing.assert_array_equal(out["a"].numpy(), x * np.float32(2 + i % 2))
        np.testing.assert_array_equal(out["b"][0].numpy(), y + np.float32(2 + i % 2))
    assert len(step.plans) == 2


def test_a_result_that_is_an_input_or_a_parameter():
    p = nn.Parameter(smelt.ones(2))
    step = smelt.capture(lambda x: (x, p.detach(), x.T, x * p))
    for i in range(4):
        with smelt.no_grad():
            p.copy_(smelt.full((2,), float(i)))
            a, b, c, d = step(np.full((3, 2), i + 1.0, "float32"))
        assert a.tolist() == [[i + 1.0] * 2] * 3 and b.tolist() == [float(i)] * 2
        assert c.tolist() == [[i + 1.0] * 3] * 2 and d.tolist() == [[(i + 1.0) * i] * 2] * 3
    assert step.recording.endswith("replays") and step.plans


def test_random_numbers_go_on():
    def run(recorded):
        smelt.manual_seed(7)
        step = lambda x: x + smelt.randn(3)  # noqa: E731
        step = smelt.capture(step) if recorded else step
        values = []
        for i in range(8):
            values.append(step(smelt.zeros(3)).tolist())
            if i == 5:
                values.append(smelt.rand(5).tolist())  # numbers drawn between steps shift those of later ones
        return values, smelt.rand(2).tolist()

    assert run(True) == run(False)


def test_threads_may_change():
    def between(i, model, opt):
        smelt.set_num_threads(1 + i % 2)

    check_same(steps=14, between=between, replays=6)


# ------------------------------------------------------------------------------- what changes between steps is read anew


@pytest.mark.parametrize(
    "change",
    {
        "lr": lambda i, model, opt: setattr(opt, "lr", 0.01 / (i + 1)),
        "group": lambda i, model, opt: setattr(opt.groups[0], "weight_decay", 0.1 * i),
        "clip": lambda i, model, opt: setattr(opt, "clip_norm", [None, 0.05, 0.01][i // 5 % 3]),
        "weights": lambda i, model, opt: model.load_state_dict(
            {name: t * 0.5 if t.dtype.is_floating else t for name, t in model.state_dict().items()}
        ),
        "state": lambda i, model, opt: opt.load_state_dict(opt.state_dict()) if i % 4 == 3 else None,
        "half": lambda i, model, opt: model[0].weight._detach().copy_(model[0].weight.detach() * 0.5),
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_options_and_values_set_between_steps(change, precision):
    check_same(steps=15, between=change[1], precision=precision)


def test_an_evaluation_in_bf16_between_steps():
    x, _ = batch(4)

    def between(i, model, opt):
        if i % 3 == 2:
            with smelt.no_grad(), smelt.autocast("bf16"):
                model.eval()(smelt.tensor(x))
            model.train()

    check_same(steps=16, between=between, precision="bf16", replays=4)
    check_same(steps=16, between=between, replays=4)


def test_freezing_and_exchanging_parameters():
    def between(i, model, opt):
        if i == 5:
            model[0].weight.requires_grad = False
        if i == 10:
            model[0].weight.requires_grad = True
        if i == 15:
            model[5].float().bias._set_data(smelt.ones(5))

    check_same(steps=20, between=between, replays=8)


def test_modes_and_attributes():
    def modes(i, model, opt):
        if i in (6, 13):
            model[1].train(not model[1].training)  # one block alone

    check_same(steps=20, between=modes, replays=8)

    def dropout(i, model, opt):
        if i == 7:
            model[4].p = 0.9

    check_same(steps=20, between=dropout, replays=8)

    def exchange(i, model, opt):
        if i == 7:
            setattr(model, "2", nn.Tanh())

    check_same(steps=20, between=exchange, replays=8)


def test_gradients_that_are_there_before_the_step():
    """Two backwards before an update: the first writes, the second adds, each has its plan."""

    def run(recorded):
        smelt.manual_seed(0)
        model = network(0.0)
        opt = optim.SGD(model.parameters(), lr=0.1)

        def part(x, y):
            loss = losses.cross_entropy(model(x), y)
            loss.backward()
            return loss

        part = smelt.capture(part) if recorded else part
        for i in range(12):
            part(*batch(seed=i))
            if i % 2:
                opt.step()
                if i % 4 == 3:
                    opt.zero_grad()
        return weights(model), part

    final, _ = run(False)
    recorded_final, part = run(True)
    assert_same(final, recorded_final)
    assert len(part.plans) == 2


def test_gradients_without_an_optimizer():
    layer = nn.Linear(3, 1)
    step = smelt.capture(lambda x: layer(x).sum().backward())
    for i in range(6):
        layer.weight.grad = layer.bias.grad = None
        step(np.full((2, 3), i + 1.0, "float32"))
        assert layer.weight.grad.tolist() == [[2.0 * (i + 1)] * 3] and layer.bias.grad.tolist() == [2.0]
    assert step.plans


def test_a_view_of_a_parameter_is_up_to_date():
    """The version of what a replay writes moves on, so a tape that saved it before notices."""
    model = nn.Linear(4, 2)
    opt = optim.SGD(model.parameters(), lr=0.1)
    step = smelt.capture(own_step(model, opt))
    x, y = np.ones((2, 4), "float32"), np.array([0, 1])
    for _ in range(4):
        step(x, y)
    loss = model(smelt.tensor(x).requires_grad_()).sum()
    step(x, y)
    step(x, y)
    assert int(step.recording.split()[-2]) >= 1
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_the_optimizer_may_go_away():
    model = nn.Linear(4, 2)
    x, y = np.ones((2, 4), "float32"), np.array([0, 1])
    holder = {"opt": optim.SGD(model.parameters(), lr=0.1)}

    @smelt.capture
    def step(x, y):
        losses.cross_entropy(model(x), y).backward()
        holder["opt"].step()

    for _ in range(4):
        step(x, y)
    assert step.plans
    del holder["opt"]
    holder["opt"] = optim.AdamW(model.parameters(), lr=0.1)
    before = weights(model)
    step(x, y)
    assert holder["opt"].steps == 1
    assert not np.array_equal(before["weight"], model.weight.detach().numpy())


# ------------------------------------------------------------------------------------------------------- silent traps


def coin(name):
    return {"random": lambda: random.random() < 0.5, "numpy": lambda: np.random.rand() < 0.5}[name]  # noqa: NPY002


@pytest.mark.parametrize("source", ["random", "numpy"])
def test_a_branch_on_random_numbers(source):
    flip = coin(source)

    def run(recorded):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        step = lambda x: x * 2 if flip() else x + 100  # noqa: E731
        step = smelt.capture(step) if recorded else step
        return [step(smelt.ones(2)).tolist() for _ in range(30)], step

    values, _ = run(False)
    recorded, step = run(True)
    assert recorded == values
    assert step.recording == "not recorded: it draws from Python's or NumPy's random numbers"


class Every(nn.Module):
    """Does something else in each n-th call, by a counter that is an attribute."""

    def __init__(self, n):
        super().__init__()
        self.n, self.calls = n, 0

    def forward(self, x):
        self.calls += 1
        return x * 0 if self.calls % self.n == 0 else x


class Elsewhere(nn.Module):
    """The same, by a counter that nobody sees."""

    recordable = False

    def __init__(self, n):
        super().__init__()
        self.n, self.counter = n, itertools.count(1)

    def forward(self, x):
        return x * 0 if next(self.counter) % self.n == 0 else x


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (Every, "it changes the attribute Every.calls"),
        (Elsewhere, "Elsewhere has recordable = False"),
    ],
)
def test_every_hundredth_step(block, why):
    def run(recorded):
        model = nn.Sequential(block(100), nn.Linear(2, 1))
        with smelt.no_grad():
            model[1].weight.copy_(smelt.ones(1, 2))
            model[1].bias.copy_(smelt.zeros(1))
        step = lambda x: model(x).detach()  # noqa: E731
        step = smelt.capture(step) if recorded else step
        return [step(smelt.ones(1, 2)).item() for _ in range(210)], step

    values, _ = run(False)
    recorded, step = run(True)
    assert recorded == values and values[99] == 0 and values[199] == 0
    assert step.recording == f"not recorded: {why}"


class Meddler(smelt.train.Callback):
    """Changes what a step does, at the end of some steps or of an epoch."""

    def __init__(self, what, at_steps):
        self.what, self.at_steps, self.passive = what, at_steps, False

    def on_step_end(self, trainer, step, loss):
        if self.at_steps and step % 7 == 0:
            self.what(trainer.model, step)

    def on_epoch_end(self, trainer, row):
        if not self.at_steps:
            self.what(trainer.model, row["epoch"])


class Silent(Meddler):
    """The same without any code after steps."""

    on_step_end = smelt.train.Callback.on_step_end


def set_p(model, count):
    model[4].p = 0.1 * (count % 5)


def eval_of_one(model, count):
    model[1].train(count % 2 == 0)


def hidden(model, count):
    model[4].__dict__["p"] = 0.1 * (count % 5)  # behind the back of the attributes


@pytest.mark.parametrize("what", [set_p, eval_of_one, hidden])
@pytest.mark.parametrize("kind", ["steps", "passive", "epochs"])
def test_callbacks_that_change_a_step(what, kind):
    if what is hidden and kind == "passive":
        pytest.skip("a promise that is not kept")

    def run(recorded):
        smelt.manual_seed(1)
        trainer = smelt.Trainer(network(), lr=0.01)
        if not recorded:
            trainer._recorder.retry = lambda: setattr(trainer._recorder, "off", "a test")
        callback = Silent(what, False) if kind == "epochs" else Meddler(what, True)
        callback.passive = kind == "passive"
        trainer.fit(batch(96), epochs=6, batch_size=8, callbacks=[callback])
        return weights(trainer.model), trainer

    final, _ = run(False)
    recorded, trainer = run(True)
    assert_same(final, recorded)
    if kind == "steps":
        assert trainer.recording.startswith("not recorded: a callback runs after each step")
    else:
        assert trainer.recording.startswith("recorded: ")
