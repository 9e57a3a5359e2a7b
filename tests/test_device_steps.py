"""Training steps on a device: recorded into graphs, without waiting for the device, with data that comes meanwhile."""

import gc

import numpy as np
import pytest

import smelt
from smelt import _core, cuda, data, losses, nn, optim
from tests.conftest import devices

HERE = devices()


@pytest.fixture(params=HERE)
def device(request):
    return request.param


@pytest.fixture
def kernel_by_kernel():
    cuda.use_graphs(False)
    yield
    cuda.use_graphs(True)


def network(width=8):
    smelt.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 3))
    with smelt.no_grad():  # inputs of 3e38 become infinite
        model[0].weight.assign_(model[0].weight * 20)
    return model


def batch(i, rows=12):
    rng = np.random.default_rng(i)
    return rng.normal(size=(rows, 6)).astype(np.float32), rng.integers(0, 3, rows)


def trainer_on(device, recorded=True, **options):
    model = network().to(device)
    opt = optim.AdamW(model.parameters(), lr=0.05, **options)
    trainer = smelt.Trainer(model, optimizer=opt, metrics=["accuracy"], device=device)
    if not recorded:
        trainer._recorder.off = "the test wants every step to run"
    return trainer


def state_of(trainer):
    return {name: t.numpy().copy() for name, t in trainer.model.state_dict().items()}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


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


# ------------------------------------------------------------------------------- failures that nobody waited for


def too_large():
    return np.full((12, 6), 3e38, np.float32), batch(0)[1]


def wrong_label():
    x, y = batch(3)
    y[2] = 7
    return x, y


def assert_learns(trainer):
    before, steps = state_of(trainer), trainer.steps
    for i in range(3):
        trainer.step(*batch(50 + i))
    assert trainer.steps == steps + 3
    assert any((a != before[name]).any() for name, a in state_of(trainer).items())


def test_a_failure_behind_another_error_is_not_left(device):
    trainer = trainer_on(device)
    x, y = batch(5, 60)
    x[12:24], x[24] = 3e38, np.nan
    with pytest.raises(ValueError, match="step 3 has 6 values"):
        trainer.fit((x, y), epochs=1, batch_size=12, shuffle=False)
    assert trainer.steps == 1
    assert_learns(trainer)


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict", "steps"])
def test_whatever_comes_next_raises_it(device, call):
    trainer = trainer_on(device)
    trainer.step(*batch(0))
    trainer.step(*too_large())
    x, y = batch(1, 24)
    with pytest.raises(RuntimeError, match="loss must be finite"):
        {
            "fit": lambda: trainer.fit((x, y), epochs=1),
            "evaluate": lambda: trainer.evaluate((x, y)),
            "predict": lambda: trainer.predict(x),
            "steps": lambda: trainer.steps,
        }[call]()
    assert trainer.steps == trainer.optimizer.steps == 1
    assert_learns(trainer)


@pytest.mark.parametrize("wait", ["item", "synchronize", "nothing"])
def test_a_wrong_label_is_raised_by_the_trainer_whoever_waits_first(device, wait):
    trainer = trainer_on(device)
    trainer.step(*batch(0))
    with pytest.raises(IndexError, match=r"cross_entropy: labels must be in \[0, 3\), got 7 at position 2, in step 2"):
        loss = trainer.step(*wrong_label())
        if wait == "item":
            loss.item()
        elif wait == "synchronize":
            cuda.synchronize(device)
        trainer.step(*batch(1))
    assert trainer.steps == 1
    assert_learns(trainer)


def test_another_trainer_is_not_stopped(device):
    one, other = trainer_on(device), trainer_on(device)
    one.step(*batch(0))
    one.step(*wrong_label())
    for i in range(3):
        other.step(*batch(i))
    assert other.steps == 3
    with pytest.raises(IndexError, match="in step 2"):
        one.step(*batch(1))
    assert_learns(one)
    assert_learns(other)


def test_trainers_that_share_an_optimizer(device):
    model = network().to(device)
    opt = optim.AdamW(model.parameters())
    one, other = (smelt.Trainer(model, optimizer=opt, device=device) for _ in range(2))
    one.step(*batch(0))
    other.step(*batch(1))
    one.step(*too_large())
    for _ in range(2):
        try:
            other.step(*batch(2))
        except RuntimeError as error:
            assert "it was not before step 2, with the same optimizer" in str(error)
    with pytest.raises(RuntimeError, match="at step 2"):
        _ = one.steps
    assert (one.steps, other.steps, opt.steps) == (1, 1, 2)
    del one
    third = smelt.Trainer(model, optimizer=opt, device=device)
    third.step(*too_large())
    del third
    assert_learns(smelt.Trainer(model, optimizer=opt, device=device))


def test_statistics_that_moved_are_put_back(device):
    model = network().to(device)
    opt = optim.AdamW(model.parameters())
    one, other = (smelt.Trainer(model, optimizer=opt, device=device) for _ in range(2))
    for trainer in (one, other, one):
        trainer.step(*batch(1))
    model.to("cpu")
    model.to(device)
    one.step(*batch(2))
    assert one.steps == 3
    before = state_of(one)
    one.step(*too_large())
    with pytest.raises(RuntimeError, match="loss must be finite"):
        one.step(*batch(2))
    assert_same_bits(before, state_of(one))


def test_views_of_buffers_stay_views(device):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("counts", smelt.zeros(2, 3, device=device))
            self.register_buffer("first", self.counts[0])

        def forward(self, x):
            with smelt.no_grad():
                self.counts.assign_(self.counts + 1)
            return self.layer(x)

    model = Counting()
    model.layer.to(device)
    trainer = smelt.Trainer(nn.Linear(1, 1), device=device)
    whole = trainer._transfer.buffers(model)
    model(smelt.ones(2, 6, device=device))
    assert model.first.tolist() == [1.0] * 3
    assert trainer._transfer.buffers(model).shape == whole.shape == (256,)


def test_a_capture_knows_where_its_inputs_are(device):
    double = smelt.capture(lambda x: (x + 1) * 2)
    for where in ("cpu", "cpu", "cpu", device, device, device, "cpu", device):
        result = double(smelt.tensor(np.arange(4.0), device=where))
        assert result.device == where and result.tolist() == [2.0, 4.0, 6.0, 8.0]
    assert "replays" in double.recording


def test_outputs_of_other_forms(device):
    """A transposed output is read as such, and a loss may be bfloat16."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x):
            return self.layer(x).swapaxes(-1, -2)

    class First(smelt.metrics.Metric):
        name = "first"

        def reset(self):
            self.seen = []

        def update(self, outputs, targets):
            self.seen.append(outputs.numpy()[0, 1])

        def compute(self):
            return float(np.sum(self.seen))

    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    found = []
    for where in ("cpu", device):
        smelt.manual_seed(1)
        trainer = smelt.Trainer(Turned(), loss="mse", metrics=[First()], device=where)
        found.append(trainer.fit((x, np.zeros((4, 4), np.float32)), epochs=5, batch_size=4).rows[-1]["train_first"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    half = smelt.Trainer(nn.Linear(6, 3), loss=lambda o, y: (o * o)[0, 0], precision="bf16", device=device)
    for i in range(5):
        half.step(*batch(i))
    assert half.steps == 5


def test_an_optimizer_goes_along_to_the_device(device):
    model = nn.Linear(6, 3)
    opt = optim.AdamW(model.parameters(), clip_norm=1.0)
    for i in range(2):
        x, y = batch(i)
        losses.cross_entropy(model(smelt.tensor(x)), smelt.tensor(y)).backward()
        opt.step()
    trainer = smelt.Trainer(model, optimizer=opt, device=device)
    for i in range(5):
        trainer.step(*batch(i))
    assert (trainer.steps, opt.steps, opt.skipped_steps) == (5, 7, 0)


def test_a_loader_for_another_device_is_refused(device):
    with pytest.raises(ValueError, match=f"the loader's device must be cpu, got {device}"):
        smelt.Trainer(nn.Linear(6, 3), device="cpu").fit(data.Loader(batch(0), 4, device=device))
    for options in ({"device": None}, {"device": device, "resident": "yes"}):
        with pytest.raises(TypeError, match="device must be a name and resident a bool"):
            data.Loader(batch(0), 4, **options)


def test_uploads_from_two_threads(device):
    import threading

    uploader, wrong = _core.Uploader(device), []

    def send(number):
        for i in range(20):
            value = 100.0 * number + i
            x = uploader.upload(smelt.full((600_000,), value))
            if (x.numpy() != value).any():
                wrong.append(value)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_what_was_held_is_not_kept(device):
    before = smelt.memory_stats(device)["in_use"]
    held = list(data.Loader((np.zeros((4000, 10), np.float32), np.zeros(4000, int)), 20, device=device))
    del held
    assert smelt.memory_stats(device)["in_use"] - before < 50_000


def test_where_memory_is_short_steps_still_run(device):
    """A plan that does not fit is left out, and where a step does not fit either, the error says what it needs."""
    x, y = np.zeros((256, 6), np.float32), np.zeros(256, int)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))
    trainer = smelt.Trainer(model, device=device)
    for _ in range(2):
        trainer.step(x, y)
    trainer._settle()
    steps = trainer.steps
    smelt.set_memory_limit(smelt.memory_stats(device)["in_use"] + 1000, device)
    try:
        with pytest.raises(
            MemoryError, match=r"recorded, a step of 256 rows needs \d+ bytes besides model and optimizer"
        ):
            trainer.step(x, y)
    finally:
        smelt.set_memory_limit(None, device)
    assert trainer.steps == steps
    for _ in range(4):
        trainer.step(x, y)
    assert trainer.steps == steps + 4
