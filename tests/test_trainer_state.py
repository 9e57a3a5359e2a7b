"""What fit, evaluate and predict take over from the caller, leave as it was, refuse, and find again on resuming."""

import numpy as np
import pytest

import smelt
from smelt import nn
from tests.test_trainer import BATCH, new_trainer, problem

# ------------------------------------------------------------------------------------------------------------- modes


def modes(model):
    return [module.training for module in model.modules()]


def test_evaluate_and_predict_leave_the_mode_of_every_module():
    """Also after an error, and also what a frozen part goes back to."""
    trainer = new_trainer()
    trainer.model.train()
    trainer.model[1].eval()
    nn.freeze(trainer.model[4])
    before = modes(trainer.model)
    assert True in before and before.count(False) == 3
    trainer.evaluate(problem())
    trainer.predict(problem()[0])
    assert modes(trainer.model) == before
    for call in (lambda: trainer.predict(np.ones((4, 5), np.float32)), lambda: trainer.evaluate(problem(), 0)):
        with pytest.raises(ValueError, match=r"linear|batch_size"):
            call()
        assert modes(trainer.model) == before
    nn.unfreeze(trainer.model[4])
    assert modes(trainer.model[4]) == [True, True]


def test_unfreeze_gives_back_the_mode_from_before_or_asked_for_since():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)).eval()
    nn.unfreeze(nn.freeze(nn.freeze(model)))
    assert modes(model) == [False] * 3
    model[1].train()
    nn.unfreeze(nn.freeze(model))
    assert modes(model) == [False, False, True]
    nn.freeze(model).train()
    assert modes(model) == [False] * 3 and modes(nn.unfreeze(model)) == [True] * 3
    nn.unfreeze(nn.freeze(model).eval())
    assert modes(model) == [False] * 3
    assert all(p.requires_grad for p in model.parameters())
