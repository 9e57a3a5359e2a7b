"""smelt.profile: every kernel once, with its layer, phase and work; nothing left behind; the command."""

import json
import threading

import numpy as np
import pytest

import smelt
from smelt import kernels, losses, nn, optim
from smelt.cli import main
from smelt.nn import module

LIMITS = {"fma_gflops": 100.0, "copy_gbs": 10.0}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 5), nn.GELU())
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.inner(x))


def step(model, optimizer):
    loss = losses.cross_entropy(model(smelt.ones(4, 6)), smelt.zeros(4).astype("int64"))
    loss.backward()
    optimizer.step()


@pytest.fixture
def trained():
    model = Block()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    step(model, optimizer)
    with smelt.profile() as p:
        step(model, optimizer)
    return p, model, optimizer


def test_every_kernel_is_seen_once_and_in_order(trained):
    p, model, optimizer = trained
    with kernels.trace() as names:
        step(model, optimizer)
    assert [k.name for k in p.kernels] == names
    begins = [k.begin for k in p.kernels]
    assert begins == sorted(begins)
    assert 0 < sum(k.seconds for k in p.kernels) <= p.seconds


def test_layers_and_phases(trained):
    p, *_ = trained
    products = [(k.layer, k.backward) for k in p.kernels if k.name.endswith("_gemm")]
    # Forward through both layers, then dw and dx of the head, and dw alone of the first layer.
    assert products == [("inner.0", False), ("head", False), ("head", True), ("head", True), ("inner.0", True)]
    assert {k.layer for k in p.kernels if k.name.endswith("unary_backward")} == {"inner.0"}  # with its ReLU
    outside = {k.layer for k in p.kernels if "cross_entropy" in k.name and not k.backward}
    assert outside == {"(cross_entropy)"}
    assert any(k.name.endswith("_adam") for k in p.kernels)


def test_work_is_counted(trained):
    p, *_ = trained
    first = next(k for k in p.kernels if k.name.endswith("_gemm"))
    assert first.flops == 2 * 4 * 6 * 5 and first.nbytes == 4 * (4 * 6 + 6 * 5 + 4 * 5)
    adam = next(k for k in p.kernels if k.name.endswith("_adam"))
    parameters = sum(w.size for w in map(np.asarray, [np.empty(s) for s in ((5, 6), 5, (3, 5), 3)]))
    assert adam.nbytes == 28 * parameters


def test_rows_and_table(trained):
    p, *_ = trained
    rows = p.rows(LIMITS)
    assert sum(r["calls"] for r in rows) == len(p.kernels)
    assert sum(r["seconds"] for r in rows) == pytest.approx(sum(k.seconds for k in p.kernels), rel=1e-6, abs=1e-8)
    assert [r["seconds"] for r in rows] == sorted((r["seconds"] for r in rows), reverse=True)
    text = p.table(LIMITS, rows=3).splitlines()
    assert len(text) == 6 and text[0].split()[0] == "layer"
    assert text[4].startswith(f"{len(rows) - 3} more") and "outside of kernels" in text[5]


def test_the_trace_is_json_for_a_viewer(trained, tmp_path):
    p, *_ = trained
    p.save(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    assert len([e for e in spans if e["tid"] == 2]) == len(p.kernels)
    assert {e["name"] for e in spans if e["tid"] == 1} == {"model", "inner", "inner.0", "head"}
    assert all(e["ts"] >= 0 and e["dur"] >= 0 for e in spans)
    head = next(e for e in spans if e["tid"] == 1 and e["name"] == "head")
    product = [e for e in spans if e["tid"] == 2 and e["args"]["layer"] == "head" and e["cat"] == "forward"]
    assert product and all(head["ts"] <= e["ts"] <= head["ts"] + head["dur"] for e in product)


def test_an_empty_profile():
    with smelt.profile() as p:
        pass
    assert p.kernels == [] and p.rows(LIMITS) == [] and "kernels 0.000 ms" in p.table(LIMITS)


def test_errors_leave_nothing_behind():
    with pytest.raises(ValueError, match=r"layer inner\.0"), smelt.profile() as p:
        Block()(smelt.ones(4, 7))
    assert module.listener is None and not p.kernels[-1].backward
    with smelt.profile():
        with pytest.raises(RuntimeError, match="another profile must end first"), smelt.profile():
            pass
        with pytest.raises(RuntimeError, match="already running"), kernels.trace():
            pass
    with kernels.trace(), pytest.raises(RuntimeError, match="already running"), smelt.profile():
        pass
    assert module.listener is None
    with kernels.trace() as names:
        smelt.ones(2)
    assert len(names) == 1
    assert smelt._core.set_call_layer(0) == 0


def test_other_threads_do_not_count():
    model = Block()
    with smelt.profile() as p:
        thread = threading.Thread(target=lambda: model(smelt.ones(2, 6)))
        thread.start()
        thread.join()
    assert p.kernels == []


def test_training_under_a_profile_gives_the_same_weights():
    weights = []
    for profiled in (False, True):
        smelt.manual_seed(0)
        model = Block()
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(3):
            if profiled:
                with smelt.profile():
                    step(model, optimizer)
            else:
                step(model, optimizer)
        weights.append([p.detach().numpy().tobytes() for p in model.parameters()])
    assert weights[0] == weights[1]


def test_the_command(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "digits", "--epochs", "2", "--out", str(out), "--profile", "--json"]) == 0
    streams = capsys.readouterr()
    result = json.loads(streams.out)
    assert "profile of 20 steps" in streams.err
    assert {row["phase"] for row in result["profile"]} == {"forward", "backward"}
    assert (out / "profile.txt").read_text().startswith("profile of 20 steps\nlayer")
    assert json.loads((out / "trace.json").read_text())["traceEvents"]
    assert module.listener is None
