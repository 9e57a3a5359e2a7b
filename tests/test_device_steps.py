"""Training steps on a device: recorded into graphs, without waiting for the device, with data that comes meanwhile."""

import gc

import numpy as np
import pytest

import smelt
from smelt import _core, cuda, data, losses, nn, optim
from tests.conftest import devices
from tests.device_training import assert_same_bits, batch, state_of, trainer_on

HERE = devices()


@pytest.fixture(params=HERE)
def device(request):
    return request.param


@pytest.fixture
def kernel_by_kernel():
    cuda.use_graphs(False)
    yield
    cuda.use_graphs(True)


def train(device, steps=8, recorded=True, **options):
    gc.collect()  # the end of another test's optimizer would drop the plans
    trainer = trainer_on(device, recorded, **options)
    values = [trainer.step(*batch(i)) for i in range(steps)]
    return trainer, [v.item() for v in values]


# ------------------------------------------------------------------------------------------------------------- graphs


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_a_replayed_step_has_the_bits_of_one_that_runs(device, clip_norm):
    replayed, run = train(device, clip_norm=clip_norm), train(device, recorded=False, clip_norm=clip_norm)
    assert "5 replays" in replayed[0].recording
    assert [p.graphs() for p in (k.plan for k in next(iter(replayed[0]._recorder._keys.values())).plans)] == [1]
    assert replayed[1] == run[1]
    assert_same_bits(state_of(replayed[0]), state_of(run[0]))


def test_kernel_by_kernel_gives_the_same_bits(device, kernel_by_kernel):
    without = train(device)
    cuda.use_graphs(True)
    within = train(device)
    assert "5 replays" in without[0].recording
    assert without[1] == within[1]
    assert_same_bits(state_of(without[0]), state_of(within[0]))


def test_memory_of_a_step_is_known_before_the_first(device):
    trainer = trainer_on(device)
    known = trainer.plan(12, data=batch(0))
    for i in range(3):
        trainer.step(*batch(i))
    (plan,) = trainer._recorder.plans()
    assert known.memory() == plan.memory() > 0
    assert known.kernels() == plan.kernels()


def test_two_updates_in_a_step_are_two_graphs(device):
    """The options of the second must not be there before the first has read its own."""

    def run(capture):
        smelt.manual_seed(1)
        model = nn.Linear(6, 3).to(device)
        opt = optim.Adam(model.parameters(), lr=0.05)

        def step(x, y):
            for _ in range(2):
                opt.zero_grad()
                loss = losses.cross_entropy(model(smelt.dropout(x, 0.5)), y)
                loss.backward()
                opt.step()
            return loss

        wrapped = smelt.capture(step) if capture else step
        found = []
        for i in range(6):
            x, y = (smelt.tensor(v, device=device) for v in batch(i))
            found.append(wrapped(x, y).item())
        return wrapped, found, model.weight.numpy()

    captured, plain = run(True), run(False)
    assert "3 replays" in captured[0].recording
    assert captured[0].plans[0]._core.graphs() >= 2
    assert captured[1] == plain[1]
    np.testing.assert_array_equal(captured[2], plain[2])


def test_a_larger_plan_moves_the_memory_of_the_others(device):
    """Plans share one piece of memory; a graph with addresses of the old one is made anew."""

    @smelt.capture
    def double(x):
        return (x + 1) * 2

    for n in (4, 5000, 4, 5000, 4, 5000, 4, 5000):
        x = np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(double(smelt.tensor(x, device=device)).numpy(), (x + 1) * 2)
    assert "4 replays" in double.recording


def test_inputs_are_read_when_the_step_runs(device):
    @smelt.capture
    def square(x):
        return x * x

    results = [square(smelt.full((3,), float(i), device=device)) for i in range(5)]
    assert [r.tolist() for r in results] == [[float(i * i)] * 3 for i in range(5)]


def test_what_a_step_does_on_two_devices_is_not_recorded(device):
    smelt.manual_seed(0)

    @smelt.capture
    def noisy(x):
        return x + smelt.randn(3, device=device)

    for _ in range(5):
        noisy(smelt.ones(3, device=device))
    assert "kernels run on" in noisy.recording or "from one device to another" in noisy.recording


# ------------------------------------------------------------------------------------------------- losses, read late


def test_a_loss_that_is_not_finite_changes_nothing(device):
    """Neither the step with it nor the one that was already on its way, recorded or not."""
    for good in (1, 6):  # before there is a plan, and with one
        trainer = trainer_on(device)
        for i in range(good):
            trainer.step(*batch(i))
        before, steps = state_of(trainer), trainer.steps
        x, y = batch(99)
        x[:] = 3e38
        loss = trainer.step(x, y)
        with pytest.raises(
            RuntimeError, match=rf"loss must be finite, it is \w+ at step {good + 1} with learning rate 0.05"
        ):
            trainer.step(*batch(100))
        assert not np.isfinite(loss.item())
        assert_same_bits(before, state_of(trainer))
        assert trainer.steps == steps == good
        other = trainer_on(device)
        for i in range(good):
            other.step(*batch(i))
        for one in (trainer, other):  # as if nothing had been, but for the random numbers drawn
            smelt.manual_seed(4)
            for i in (7, 8):
                one.step(*batch(i))
        assert_same_bits(state_of(other), state_of(trainer))


def test_the_number_of_steps_waits_for_the_last(device):
    trainer = trainer_on(device)
    x, y = batch(0)
    trainer.step(np.full_like(x, 3e38), y)
    with pytest.raises(RuntimeError, match="at step 1"):
        _ = trainer.steps
    assert trainer.steps == 0


def test_a_wrong_label_changes_nothing(device):
    trainer = trainer_on(device)
    trainer.step(*batch(0))
    before = state_of(trainer)
    x, y = batch(1)
    y[5] = 3
    with pytest.raises(IndexError, match=r"cross_entropy: .*must be in \[0, 3\).* got 3 at position 5"):
        for _ in range(2):  # found in this step or, where the device is behind, in the next
            trainer.step(x, y)
            x, y = batch(2)
    assert_same_bits(before, state_of(trainer))
    trainer.step(*batch(2))
    assert trainer.steps == 2


def test_inputs_that_are_not_finite_are_named_before_they_go(device):
    trainer = trainer_on(device)
    x, y = batch(0)
    x[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"inputs must be finite, step 1 has 1 values that are not \(first in row 2"):
        trainer.step(x, y)


def test_fit_counts_every_step(device):
    """What fit reads one step late is what a callback sees at each step, and what the CPU has."""
    seen = []

    class Each(smelt.train.Callback):
        passive = True

        def on_step_end(self, trainer, step, value):
            seen.append((step, value))

    x, y = batch(5, 100)
    rows = []
    for where, callbacks in ((device, []), (device, [Each()]), ("cpu", [])):
        trainer = trainer_on(where)
        history = trainer.fit((x, y), validation=(x, y), epochs=3, batch_size=16, callbacks=callbacks)
        rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in history.rows])
        assert "replays" in trainer.recording
    assert rows[0] == rows[1]
    assert [step for step, _ in seen] == list(range(1, 22))
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[2]]
    assert rows[0][0]["train_loss"] == pytest.approx(rows[2][0]["train_loss"], rel=1e-4)


def test_a_run_that_fails_in_its_last_step_says_so(device):
    x, y = batch(5, 24)
    x[12:] = 3e38  # finite, but not the loss
    trainer = trainer_on(device)
    with pytest.raises(RuntimeError, match="at step 2 "):
        trainer.fit((x, y), epochs=1, batch_size=12, shuffle=False)
    assert trainer.steps == 1


def test_a_run_goes_on_with_the_same_bits(device, tmp_path):
    x, y = batch(5, 60)
    whole = trainer_on(device)
    whole.fit((x, y), epochs=2, batch_size=8, out=tmp_path / "whole", checkpoint_every=3)

    class Stop(smelt.train.Callback):
        def on_step_end(self, trainer, step, value):
            trainer.stop = step == 11

    parts = trainer_on(device)
    parts.fit((x, y), epochs=2, batch_size=8, out=tmp_path / "parts", checkpoint_every=3, callbacks=[Stop()])
    resumed = trainer_on(device)
    resumed.fit((x, y), epochs=2, batch_size=8, out=tmp_path / "parts", checkpoint_every=3, resume=True)
    assert_same_bits(state_of(whole), state_of(resumed))
    assert whole.steps == resumed.steps == 16


def test_skipped_steps_are_counted_on_the_device(device):
    for where in ("cpu", device):
        model = nn.Linear(3, 1).to(where)
        opt = optim.SGD(model.parameters(), lr=0.1, clip_norm=1.0)
        for value in (1.0, np.inf, 2.0, np.nan):
            opt.zero_grad()
            model(smelt.tensor(np.full((2, 3), value, np.float32), device=where)).sum().backward()
            opt.step()
        assert (opt.steps, opt.skipped_steps) == (4, 2)
        saved = opt.state_dict()
        assert saved["skipped"] == 2
        opt.load_state_dict({**saved, "skipped": 7})
        assert opt.skipped_steps == 7


# ---------------------------------------------------------------------------------------------- data that comes meanwhile


def test_uploads_never_write_what_somebody_holds(device):
    uploader = _core.Uploader(device)
    held = [uploader.upload(smelt.full((50,), float(i))) for i in range(12)]
    assert [t.numpy()[0] for t in held] == list(range(12))
    part = held[3][10:20]
    del held
    for i in range(20):
        uploader.upload(smelt.full((50,), 100.0 + i))
    assert part.numpy().tolist() == [3.0] * 10


def test_uploads_use_their_memory_again(device):
    uploader = _core.Uploader(device)
    before = smelt.memory_stats(device)
    for i in range(100):
        assert uploader.upload(smelt.full((64, 3), float(i))).numpy()[5, 1] == i
    assert smelt.memory_stats(device)["allocations"] - before["allocations"] < 8
    for n in range(60):  # of many sizes: not all are kept
        uploader.upload(smelt.zeros(1000 + n))
    assert smelt.memory_stats(device)["in_use"] - before["in_use"] < 45 * 4500


def test_read_outs(device):
    readout = _core.Readout(device)
    x, y = smelt.tensor(np.arange(5.0), device=device), smelt.tensor(np.ones((2, 3), "int32"), device=device)
    readout.start([x, y])
    a, b = readout.values()
    assert a.device == b.device == "cpu"
    assert a.tolist() == [0, 1, 2, 3, 4] and b.dtype.name == "int32" and b.tolist() == [[1, 1, 1]] * 2
    readout.start([smelt.zeros(1000, device=device)])
    (z,) = readout.values()
    assert z.shape == (1000,) and not z.numpy().any()


def test_a_loader_brings_batches_to_the_device(device):
    x, y = batch(0, 37)
    here, there = data.Loader((x, y), 8, shuffle=True), data.Loader((x, y), 8, shuffle=True, device=device)
    kept = list(there)
    assert [len(t) for t, _ in kept] == [8, 8, 8, 8, 5]
    for (a, b), (c, d) in zip(here, kept):
        assert c.device == d.device == device
        np.testing.assert_array_equal(a.numpy(), c.numpy())
        np.testing.assert_array_equal(b.numpy(), d.numpy())
    assert f"device='{device}'" in repr(there)
    trainer = trainer_on(device)
    trainer.fit(there, epochs=2)
    assert trainer.steps == 10
    with pytest.raises(ValueError, match="must be 'cpu', 'cuda' or 'cuda:<index>', got 'gpu'"):
        data.Loader((x, y), 8, device="gpu")


# -------------------------------------------------------------------------------------------------- streams and events


def test_streams(device):
    compute, copy = cuda.Stream(device), cuda.Stream(device, "copy")
    assert repr(copy) == f"Stream({device!r}, 'copy')" and isinstance(copy.handle, int)
    event = cuda.Event(device)
    copy.wait(event)  # never recorded
    event.record(copy)
    compute.wait(event)
    x = smelt.ones(10, device=device) * 2
    event.record(compute)
    copy.wait(event)
    copy.synchronize()
    compute.synchronize()
    assert event.is_done() and x.tolist() == [2.0] * 10
    with pytest.raises(ValueError, match="kind must be 'compute' or 'copy', got 'third'"):
        cuda.Stream(device, "third")
    with pytest.raises(TypeError, match="event must be an Event, got int"):
        copy.wait(3)
    with pytest.raises(TypeError, match="stream must be a Stream, got str"):
        event.record("copy")


@pytest.mark.skipif("emu" not in HERE, reason="needs a build with -DSMELT_EMU=ON (device emu)")
def test_streams_and_events_of_two_devices():
    with pytest.raises(ValueError, match="event must be of emu:1, got one of emu"):
        cuda.Stream("emu:1").wait(cuda.Event("emu"))
    with pytest.raises(ValueError, match="stream must be of emu, got one of emu:1"):
        cuda.Event("emu").record(cuda.Stream("emu:1"))


def test_use_graphs_takes_a_bool():
    with pytest.raises(TypeError, match="on must be True or False, got 1"):
        cuda.use_graphs(1)


@pytest.mark.parametrize("preprocess", [None, data.ImagePreprocess((3, 2, 1), 1 / 255, [0.5], [0.3])])
def test_a_dataset_on_the_device_is_gathered_there(device, preprocess):
    """By the graph too, with the bits of batches that came from the host."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (50, 3, 2, 1)).astype(np.uint8), rng.integers(0, 3, 50)
    if preprocess is None:
        x = x.astype(np.float32)
    models = []
    for resident in (False, True):
        gc.collect()
        smelt.manual_seed(2)
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Dropout(0.2), nn.ReLU(), nn.Linear(5, 3))
        trainer = smelt.Trainer(model, preprocess=preprocess, metrics="accuracy", device=device)
        loader = data.Loader((x, y), 10, shuffle=True, device=device, resident=resident)
        history = trainer.fit(loader, epochs=3, validation=loader if resident else (x, y))
        assert "replays" in trainer.recording
        assert [plan._core.graphs() for plan in trainer._recorder.plans()] == [1]
        models.append((state_of(trainer), [{k: v for k, v in r.items() if k != "seconds"} for r in history.rows]))
    assert_same_bits(models[0][0], models[1][0])
    assert [r["train_loss"] for r in models[0][1]] == [r["train_loss"] for r in models[1][1]]
    assert f"device='{device}', resident=True" in repr(loader)
    assert [len(b) for b, _ in loader] == [10] * 5


def test_a_dataset_on_the_device_is_checked_once(device):
    x, y = batch(0, 30)
    x[7, 2] = np.inf
    with pytest.raises(ValueError, match=r"inputs must be finite, the dataset has 1 values .* row 7 of the dataset"):
        trainer_on(device).fit(data.Loader((x, y), 10, device=device, resident=True), epochs=1)


def test_a_resident_dataset_on_the_cpu_is_where_it_was():
    assert not data.Loader(batch(0), 4, resident=True).resident
