"""Schedules against their formulas."""

import math

import pytest

import smelt
from smelt import nn, optim, schedule

EXACT = dict(rel=1e-12, abs=1e-12)  # some float64 operations on numbers of the order of 1


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_cosine(steps, end):
    s = schedule.cosine(steps, end)
    for i in range(steps + 3):
        expected = end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(i, steps) / steps))
        assert s(i) == pytest.approx(expected, **EXACT)
    assert s(0) == 1 and s(steps) == pytest.approx(end, **EXACT) == s(10**9)


@pytest.mark.parametrize("factor", [0.1, 0.5])
def test_step(factor):
    s, drops = schedule.step(4, factor), schedule.step([7, 3, 3], factor)
    for i in range(20):
        assert s(i) == pytest.approx(factor ** (i // 4), **EXACT)
        assert drops(i) == pytest.approx(factor ** (2 * (i >= 3) + (i >= 7)), **EXACT)


@pytest.mark.parametrize(("steps", "rise"), [(100, 0.3), (10, 0.0), (10, 1.0), (1, 0.3), (7, 0.5)])
def test_one_cycle(steps, rise):
    start, end = 0.05, 0.001
    s, top = schedule.one_cycle(steps, rise, start, end), rise * steps
    for i in range(steps + 3):
        if i < top:
            expected = start + (1 - start) * 0.5 * (1 - math.cos(math.pi * i / top))
        elif steps == top:
            expected = 1.0 if i == top else end
        else:
            expected = end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min((i - top) / (steps - top), 1)))
        assert s(i) == pytest.approx(expected, **EXACT)


def test_warmup():
    s = schedule.warmup(4, then=schedule.step(2, 0.5), start=0.2)
    assert [s(i) for i in range(9)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.5, 0.5, 0.25], **EXACT)
    assert [schedule.warmup(2)(i) for i in range(4)] == [0, 0.5, 1, 1]
    assert [schedule.warmup(0)(i) for i in range(2)] == [1, 1] == [schedule.constant()(i) for i in range(2)]


def test_names():
    assert schedule.get(None, 5)(3) == schedule.get("constant", 5)(4) == 1
    for i in range(42):
        assert schedule.get("cosine", 40)(i) == schedule.cosine(40)(i)
        assert schedule.get("one_cycle", 40)(i) == schedule.one_cycle(40)(i)
        assert schedule.get("warmup_cosine", 40)(i) == schedule.warmup(2, schedule.cosine(38))(i)  # 5 % of the steps
    own = lambda index: 0.5  # noqa: E731
    assert schedule.get(own, 3) is own
    for name in ("constant", "cosine", "one_cycle", "warmup_cosine"):  # runs of no and of one step
        assert math.isfinite(schedule.get(name, 0)(0)) and math.isfinite(schedule.get(name, 1)(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedule.cosine(0), "cosine: steps must be at least 1, got 0"),
        (lambda: schedule.step(0), "step: size must be at least 1, got 0"),
        (lambda: schedule.one_cycle(0), "one_cycle: steps must be at least 1, got 0"),
        (lambda: schedule.one_cycle(5, rise=1.5), r"one_cycle: rise must be in \[0, 1\], got 1.5"),
        (lambda: schedule.warmup(-1), "warmup: steps must not be negative, got -1"),
        (
            lambda: schedule.get("linear", 5),
            "schedule: must be constant, cosine, one_cycle, warmup_cosine or a function, got 'linear'",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


def test_the_trainer_follows_a_schedule():
    layer = nn.Linear(2, 2)
    opt = optim.SGD([{"params": [layer.weight], "lr": 0.5}, {"params": [layer.bias], "lr": 0.25}])
    seen = []

    class Rates(smelt.train.Callback):
        def on_step_end(self, trainer, step, loss):
            seen.append([group.lr for group in trainer.optimizer.groups])

    trainer = smelt.Trainer(layer, optimizer=opt, schedule="cosine")
    trainer.fit((smelt.randn(6, 2), smelt.zeros(6, dtype="int64")), epochs=2, batch_size=2, callbacks=[Rates()])
    expected = [[f * 0.5, f * 0.25] for f in map(schedule.cosine(6), range(6))]
    assert len(seen) == 6
    for got, want in zip(seen, expected):
        assert got == pytest.approx(want, **EXACT)
