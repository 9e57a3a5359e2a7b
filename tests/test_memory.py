"""Training steps leave nothing behind: resident memory stays level over thousands of them."""

import pytest

from tests.processes import python

# Prints by how many bytes the process has grown between the 500th and the 5,500th step.
MEASURE = """
import gc, os
import numpy as np
import smelt
from smelt import data, losses, metrics, nn, optim

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

rng = np.random.default_rng(0)
x = rng.normal(size=(64, 6, 6, 2)).astype(np.float32)
y = rng.integers(0, 3, 64)
model = nn.Sequential(
    nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 3)
)
{setup}
for number in range(5500):
    if number == 500:
        gc.collect()
        before = resident()
    {step}
gc.collect()
print(resident() - before)
"""
LOOP = """
    loss = losses.cross_entropy(model(smelt.from_numpy(x[:8])), smelt.from_numpy(y[:8]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
SETUPS = {
    "own loop": ("optimizer = optim.AdamW(model.parameters(), clip_norm=1.0)", LOOP),
    "trainer": ("trainer = smelt.Trainer(model, metrics=['accuracy'])", "trainer.step(x[:8], y[:8])"),
    "fit of 10 steps": (
        "trainer = smelt.Trainer(model, metrics=['f1'])\npair = (x[:40], y[:40])",
        "if number % 10 == 0: trainer.fit(pair, validation=pair, epochs=2, batch_size=8)",
    ),
    "sizes that change": (
        "optimizer = optim.SGD(model.parameters(), lr=1e-3)",
        LOOP.replace(":8", ":1 + number % 64"),
    ),
    "errors": (
        "trainer = smelt.Trainer(model)\nbad = np.full(8, 7)",
        "try: trainer.step(x[:8], bad)\n    except IndexError: pass",
    ),
    "inference": ("model.eval()", "with smelt.no_grad(): model(smelt.from_numpy(x[:8])).argmax(-1).numpy()"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETUPS)
def test_resident_memory_grows_by_less_than_a_megabyte_in_5000_steps(name):
    setup, step = SETUPS[name]
    assert int(python(MEASURE.format(setup=setup, step=step))) <= 1 << 20


def test_the_measurement_sees_a_leak():
    leak = python(MEASURE.format(setup="kept = []", step="kept.append(np.ones(100))"))
    assert int(leak) > 5000 * 100 * 8 // 2
