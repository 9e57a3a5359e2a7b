"""A small network in training on a device, for tests."""

import numpy as np

import smelt
from smelt import nn, optim


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
