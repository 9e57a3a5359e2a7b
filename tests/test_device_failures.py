"""What goes wrong on a device: failures that nobody waited for, devices mixed up, memory that is short."""

import numpy as np
import pytest

import smelt
from smelt import _core, cuda, data, losses, nn, optim
from smelt.train.steps import Transfer
from tests.conftest import devices
from tests.device_training import assert_same_bits, batch, network, state_of, trainer_on

HERE = devices()


@pytest.fixture(params=HERE)
def device(request):
    return request.param


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


@pytest.mark.parametrize("call", ["steps", "step"])
def test_ctrl_c_while_it_waits_takes_no_step_back(device, call):
    trainer = trainer_on(device)
    for i in range(3):
        trainer.step(*batch(i))

    class Interrupted:
        def values(self):
            raise KeyboardInterrupt

    trainer._open[0]._readout = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        _ = trainer.steps if call == "steps" else trainer.step(*batch(3))
    assert trainer.steps == trainer.optimizer.steps == (3 if call == "steps" else 4)
    assert_learns(trainer)


def test_an_error_in_forward_puts_statistics_back(device):
    class Fails(nn.Module):
        fails = False

        def forward(self, x):
            if self.fails:
                raise ValueError("not today")
            return x

    model = nn.Sequential(network(), Fails()).to(device)
    trainer = smelt.Trainer(model, device=device)
    trainer.step(*batch(0))
    before = state_of(trainer)
    model[1].fails = True
    with pytest.raises(ValueError, match="not today"):
        trainer.step(*batch(1))
    assert_same_bits(before, state_of(trainer))


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
    transfer = Transfer(device)
    whole = transfer.buffers(model)
    model(smelt.ones(2, 6, device=device))
    assert model.first.tolist() == [1.0] * 3
    assert transfer.buffers(model).shape == whole.shape == (256,)


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
