"""smelt bench: alternation and intervals, every case checked before it is timed, reports, the command."""

import json
import re
import shutil
import sys
import types

import numpy as np
import pytest

import smelt
from smelt import _core, bench
from smelt.bench import measure, models, report, suites
from smelt.cli import main
from tests.conftest import devices
from tests.processes import ROOT, run


def fixed(times, load=0.0):
    return bench.Race(times, load)


def test_a_race_alternates_and_begins_each_round_with_another():
    order = []
    bench.race({name: lambda n=name: order.append(n) for name in "abc"}, rounds=6, seconds=0, warmup=0)
    begins = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    blocks = begins[3:]  # after one call of each that counts repeats
    rounds = ["".join(blocks[i : i + 3]) for i in range(0, len(blocks), 3)]
    assert len(begins) >= 3 + 6 * 2 and {r[0] for r in rounds} == set("abc")


def test_verdicts_follow_the_interval():
    same = fixed({"a": [1.0, 1.1, 0.9, 1.0, 1.05] * 5, "b": [1.05, 0.95, 1.0, 1.1, 0.9] * 5}).compare("a", "b")
    assert same.low <= 1 <= same.high and same.verdict == "no difference"
    assert fixed({"a": [1.0] * 9, "b": [1.2] * 9}).compare("a", "b").verdict == "faster"
    assert fixed({"a": [1.0] * 9, "b": [0.8] * 9}).compare("a", "b").verdict == "slower"


def test_the_interval_covers_the_median_at_least_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for n in (9, 15, 21, 31):
        inside = 0
        for _ in range(2000):
            low, high = fixed({"a": list(rng.lognormal(size=n))}).interval("a")
            inside += low <= 1 <= high
        assert inside / 2000 >= 0.94, n


def test_too_few_rounds():
    with pytest.raises(ValueError, match="at least 5, got 4"):
        bench.race({"a": int}, rounds=4)
    with pytest.raises(ValueError, match="at least 5, got 4"):
        bench.compare(int, int, pairs=4)


SMALL = {
    "gemm": ["7x5x3", "33x17x65"],
    "conv": ["2x5x6x3-4x3x3-s2", "1x4x4x6-6x3x3-g6"],
    "attention": ["2x2x9x5-causal", "1x4x33x16-kv2"],
    "optim": ["1000"],
    "norm": ["5x33"],
    "memory": [
        "max_pool2d:2x7x6x5/3,2,1",
        "avg_pool2d:2x6x6x17/2,2,0",
        "embedding:11x7+5x6",
        "permute:5x3x9/2,0,1",
        "concat:3x4+3x5/1",
        "sum:7x33/0",
        "mean:2x5x3/1",
        "max:7x33/1",
    ],
    "step": ["mlp"],
}


@pytest.mark.parametrize(("suite", "dtype"), [(n, d) for n, s in suites.SUITES.items() for d in s.dtypes])
def test_cases_compute_what_is_expected(isa, suite, dtype):
    chosen, rng = suites.SUITES[suite], np.random.default_rng(0)
    modules = suites.peers(["numpy"])
    for shape in chosen.shapes(SMALL[suite], 0, 0):
        case = chosen.build(shape, dtype, [], modules, rng, "cpu")
        case.check()
        assert case.name and (case.flops > 0 or suite == "step")


def test_named_shapes_are_many_and_of_every_kind():
    shapes = suites.SUITES["gemm"].shapes([], 0, 0)
    assert len(shapes) >= 24 and len({str(s) for s in shapes}) == len(shapes)
    assert any(s.batch > 1 for s in shapes) and any(s.m == 1 for s in shapes)
    assert {(s.ta, s.tb) for s in shapes} >= {(False, False), (True, False), (False, True)}
    drawn = bench.shapes.random_gemm(40, seed=3)
    assert drawn == bench.shapes.random_gemm(40, seed=3) != bench.shapes.random_gemm(40, seed=4)


def test_shapes_of_norms_are_of_the_ops_they_fit():
    shapes = suites.SUITES["norm"].shapes
    assert {s.op for s in shapes([], 0, 0)} == {s.op for s in shapes(["large"], 0, 0)} == set(bench.shapes.NORM)
    assert {s.op for s in shapes(["2x3x4x8"], 0, 0)} == {"batch_norm", "group_norm"}
    assert [str(s) for s in shapes(["softmax:3x5", "gelu"], 0, 0)] == [
        "softmax 3x5", *(f"gelu {r}x{d}" for r, d in bench.shapes.NORM["gelu"])
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"--shape must name one of layer_norm, .*, got 'norm:3x5'"):
        shapes(["norm:3x5"], 0, 0)
    with pytest.raises(ValueError, match=r"--shape must be ROWSxD with positive integers, got '3x4x5'"):
        shapes(["gelu:3x4x5"], 0, 0)


def test_norms_of_images_compute_what_is_expected(isa):
    rng, modules = np.random.default_rng(0), suites.peers(["numpy"])
    for dtype in ("float32", "bfloat16"):
        for shape in suites.SUITES["norm"].shapes(["3x5x4x16"], 0, 0):
            suites.SUITES["norm"].build(shape, dtype, [], modules, rng, "cpu").check()


def test_limits_of_memory_of_one_size():
    with pytest.raises(ValueError, match="stream_limits: nbytes must be at least 4096, got 100"):
        bench.stream_limits(100)
    row = bench.run("norm", ["softmax:64x64"], rounds=5)["rows"][0]
    assert row["gbs"] > 0 and row["share"] > 0


def test_a_wrong_contender_is_found_before_timing():
    rng = np.random.default_rng(0)
    case = suites.SUITES["gemm"].build(bench.shapes.Gemm("s", 4, 4, 4), "float32", [], {}, rng, "cpu")
    case.contenders["wrong"] = suites.Contender(lambda: None, lambda: [case.expected[0][0] + 1e-3])
    with pytest.raises(AssertionError, match="gemm s 4x4x4 nn: wrong exceeds the error bound by"):
        case.check()
    wanted, bound = case.expected[0]
    del case.contenders["wrong"]
    case.contenders["torch"] = suites.Contender(lambda: None, lambda: [wanted + 15 * bound])
    case.check()  # a peer may add up in another way
    case.contenders["torch"] = suites.Contender(lambda: None, lambda: [wanted + 17 * bound])
    with pytest.raises(AssertionError, match="torch exceeds"):
        case.check()
    del case.contenders["torch"]
    mine, other = (suites.Contender(lambda: None, lambda v=v: [np.full(1, v)]) for v in (2.4, 2.401))
    step = suites.Case("step", "float32", 1, 1, contenders={"smelt": mine, "torch": other})
    with pytest.raises(AssertionError, match="step: torch exceeds"):  # no bound of its own: to rounding
        step.check()
    case.contenders["wrong"] = suites.Contender(lambda: None, lambda: [case.expected[0][0] * np.nan])
    with pytest.raises(AssertionError, match="wrong exceeds"):
        case.check()
    case.contenders["wrong"] = suites.Contender(lambda: None, list)  # nothing to check is no success
    with pytest.raises(ValueError, match="zip"):
        case.check()


def test_a_kernel_against_itself_twice():
    result = bench.run("gemm", ["16x16x16"], impls=["portable", "portable"], rounds=5)
    assert [r["contender"] for r in result["rows"]] == ["smelt portable", "smelt portable #2"]
    twice = bench.run("optim", ["100"], impls=["portable", "portable"], rounds=5)
    assert [r["contender"] for r in twice["rows"]] == ["smelt portable", "smelt portable #2"]
    assert result["limits"]["fma_gflops"] > 0 and 0 < result["rows"][0]["share"] < 2


def row(contender="smelt", median=1.0, spread=0.1, case="gemm"):
    return {
        "case": case, "dtype": "float32", "contender": contender, "median_s": median, "low_s": median * (1 - spread),
        "high_s": median * (1 + spread), "gflops": 2.0, "gbs": 1.0, "share": 0.5, "ratio": 1.0, "verdict": "",
    }  # fmt: skip


def saved(tmp_path, rows, fma=100.0, **others):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"rows": rows, "limits": {"fma_gflops": fma, "copy_gbs": 10.0}, **others}))
    return path


def test_regressions_are_beyond_noise_and_relative_to_the_limits(tmp_path):
    old = saved(tmp_path, [row(), row("torch")])
    limits = {"fma_gflops": 100.0}
    for median, expected in ((1.1, 0), (1.15, 0), (1.5, 1), (0.5, 0)):
        lines, slower = report.regressions(
            {"rows": [row(median=median), row("torch", 9.0)], "limits": limits}, report.read(old)
        )
        assert len(lines) == 1 and len(slower) == expected, median
    # Half the limit: twice the time is no regression.
    assert not report.regressions({"rows": [row(median=2.0)], "limits": {"fma_gflops": 50.0}}, report.read(old))[1]
    with pytest.raises(ValueError, match="must have rows of this measurement"):
        report.regressions({"rows": [row(case="other")], "limits": limits}, report.read(old))
    old.write_text("[]")
    with pytest.raises(ValueError, match="needs a result of smelt bench --json"):
        report.read(old)


def test_what_memory_binds_is_relative_to_its_limit(tmp_path):
    old = saved(tmp_path, [{**row(), "limited_by": "copy_gbs"}])
    slow = {**row(median=2.0), "limited_by": "copy_gbs"}
    for limits, expected in (((100.0, 5.0), 0), ((50.0, 10.0), 1)):
        now = {"rows": [slow], "limits": dict(zip(("fma_gflops", "copy_gbs"), limits))}
        assert len(report.regressions(now, report.read(old))[1]) == expected
    rows = bench.run("optim", ["100000"], rounds=5)["rows"]
    assert rows[0]["limited_by"] == "update_gbs"


def test_results_of_another_machine_are_not_compared(tmp_path):
    old = saved(tmp_path, [row()], machine={"cpu": "x", "isa": "avx2", "threads": 2})
    new = {"rows": [row()], "limits": {"fma_gflops": 1.0}, "machine": {"cpu": "x", "isa": "avx2", "threads": 1}}
    with pytest.raises(ValueError, match="must be of this machine and setting, its threads is 2, now 1"):
        report.regressions(new, report.read(old))


@pytest.mark.parametrize("damage", ["limits", "median_s", "rows", "text"])
def test_damaged_results(tmp_path, damage, capsys):
    old = saved(tmp_path, [row()], fma=0.0 if damage == "limits" else 100.0)
    if damage == "median_s":
        old.write_text(old.read_text().replace("median_s", "other"))
    elif damage in ("rows", "text"):
        old.write_text('{"rows": [], "limits": {}}' if damage == "rows" else "text")
    with pytest.raises(ValueError, match="needs a result of smelt bench --json"):
        report.read(old)
    assert main(["bench", *QUICK, "--compare", str(old)]) == 2
    assert "needs a result" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["optim", "--shape", "100", "--against", "numpy"], "--against numpy: adamw 100 in float32 has no counterpart"),
        (["gemm", "--shape", "8x8x8", "--dtype", "bf16", "--against", "numpy"], "in bfloat16 has no counterpart"),
        (
            ["norm", "--random", "2"],
            "--random draws shapes of gemm and conv and attention instead of --shape, got it with norm",
        ),
        (["gemm", "--random", "2", "--shape", "8x8x8"], "got it with 8x8x8"),
        (["step", "--roofline", "x.png"], "--roofline is for single kernels"),
        (["gemm", "--csv", "nowhere/x.csv"], "--csv must name a file in a folder that exists, got nowhere/x.csv"),
    ],
)
def test_what_cannot_be_measured_is_said_before(options, text, capsys):
    assert main(["bench", *options, "--rounds", "5", "--quiet"]) == 2
    assert text in capsys.readouterr().err


def test_roofline_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    result = {
        "rows": [row(), row("torch", 2.0)],
        "limits": {"fma_gflops": 100.0, "copy_gbs": 10.0},
        "machine": {"cpu": "x"},
    }
    report.roofline(tmp_path / "roof.png", result)
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")


QUICK = ["gemm", "--shape", "16x16x16", "--rounds", "5", "--quiet"]


def test_the_command(tmp_path, capsys):
    assert main(["bench", *QUICK, "--against", "numpy", "--impl", "portable", "--csv", str(tmp_path / "rows.csv")]) == 0
    out = capsys.readouterr().out
    assert "gemm given 16x16x16 nn float32" in out and "smelt portable" in out and "numpy" in out and "limits" in out
    assert (tmp_path / "rows.csv").read_text().startswith("case,dtype,contender,median_s")

    assert main(["bench", *QUICK, "--json"]) == 0
    streams = capsys.readouterr()
    result = json.loads(streams.out)
    assert result["suite"] == "gemm" and result["machine"]["threads"] == smelt.get_num_threads()
    assert "GFLOP/s" in streams.err

    for scale, code in ((1e3, 1), (1e-3, 0)):  # an earlier result that was much faster, or slower
        rows = [{**r, **{k: r[k] / scale for k in ("median_s", "low_s", "high_s")}} for r in result["rows"]]
        old = saved(tmp_path, rows, result["limits"]["fma_gflops"], machine=result["machine"])
        assert main(["bench", *QUICK, "--compare", str(old)]) == code
    assert "0 of 1 slower" in capsys.readouterr().out


def test_help_and_page_have_the_form_of_every_suite(capsys):
    assert main(["bench", "--help"]) == 0
    told, page = capsys.readouterr().out, (ROOT / "docs" / "command-line.md").read_text()
    listed = re.findall(r"^  (\w+) +(.*)$", told[told.index("forms of --shape:") :], re.MULTILINE)
    assert listed == [(name, suite.form) for name, suite in suites.SUITES.items()]
    named = re.search(r"## smelt bench SUITE\n\n(.*?)\n\n", page, re.DOTALL)[1]
    for name in suites.SUITES:
        assert f"`{name}`" in named and f"| `{name}` |" in page


def test_the_list(capsys):
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    assert "--impl for gemm: " in out and "square 1024x1024x1024 nn" in out and "step: " in out
    assert main(["bench", "norm", "--list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["norm"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "a suite is needed: gemm, conv, attention, optim, norm, memory, step"),
        (["no"], "SUITE must be one of gemm, conv, attention, optim, norm, memory, step, got 'no'"),
        (["gemm", "--shape", "3x4"], "--shape must be MxNxK with positive integers, got '3x4'"),
        (["gemm", "--shape", "3x0x4"], "--shape must be MxNxK"),
        (["optim", "--shape", "3x4"], "--shape must be N with"),
        (["step", "--shape", "3x4"], "--shape must be of mlp, cnn, .* for step, got '3x4'"),
        (["gemm", "--dtype", "int32"], "--dtype must be float32 or .* for gemm, got 'int32'"),
        (["gemm", "--against", "caffe"], "--against must be of numpy, torch, jax, got 'caffe'"),
        (["gemm", "--impl", "no"], "--impl must begin or end the name of a kernel of slot gemm .*, got 'no'"),
        (["step", "--impl", "avx2"], "--impl is for single kernels; step runs many"),
        (["gemm", "--rounds", "4"], "must be a whole number of at least 5, got '4'"),
    ],
)
def test_usage_errors(capsys, arguments, text):
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    import re

    assert re.search(text, error), error


def test_a_peer_that_is_not_installed(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    assert main(["bench", *QUICK, "--against", "jax"]) == 2
    assert "--against jax: jax is not installed; pip install jax" in capsys.readouterr().err


@pytest.mark.skipif("avx2_gemm" not in smelt.kernels.impls("gemm"), reason="needs a CPU with AVX2")
def test_the_steps_of_the_matrix_product_are_right():
    if not any(map(shutil.which, ("c++", "g++"))):
        pytest.skip("needs a C++ compiler")
    done = run([sys.executable, ROOT / "bench" / "gemm_ladder.py", "--check"])
    assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------------------------------------- the networks

PARAMETERS = {
    "mlp": 535_818,
    "cnn": 421_738,
    "block": 2_100_736,
    "resnet18": 11_173_962,
    "resnet50": 25_557_032,
    "gpt": 3_290_624,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_their_known_size_and_take_their_batch(name):
    model = models.MODELS[name].build()
    assert sum(p.size for p in model.parameters()) == PARAMETERS[name]
    x, y = models.batch(name, 2)
    assert x.shape == (2, *models.MODELS[name].shape) and len(y) == 2
    assert model.check(smelt.from_numpy(x)) == []


def test_the_decoder_sees_no_future():
    model = models.networks.GPT(11, 8, 2, 12, 3).eval()
    tokens = np.random.default_rng(0).integers(0, 11, (2, 8))
    later = tokens.copy()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    with smelt.no_grad():
        a, b = (model(smelt.from_numpy(t)).numpy() for t in (tokens, later))
    np.testing.assert_array_equal(a[:, :5], b[:, :5])
    assert np.abs(a[:, 5:] - b[:, 5:]).min(axis=-1).max() > 0


def test_residual_blocks_learn():
    block = models.networks.bottleneck(8, 4, 2)
    x = smelt.randn(2, 6, 6, 8)
    y = block(x)
    y.sum().backward()
    assert y.shape == (2, 3, 3, 16) and all(p.grad is not None for p in block.parameters())


@pytest.mark.skipif("emu" not in devices(), reason="needs a build with -DSMELT_EMU=ON (device emu)")
@pytest.mark.parametrize(("suite", "shape"), [("gemm", "7x9x5"), ("norm", "3x40"), ("optim", "1000")])
def test_a_device_is_measured(suite, shape, monkeypatch):
    monkeypatch.setattr(measure, "_SETTLE", 0.0)
    result = bench.run(suite, [shape], rounds=5, against=["numpy"] if suite != "optim" else [], device="emu")
    assert result["machine"]["device"] == "emulator" and result["unproven"] == []
    assert all(value > 0 for value in result["limits"].values())
    assert {row["contender"] for row in result["rows"]} == ({"smelt", "numpy"} if suite != "optim" else {"smelt"})


def test_what_no_test_has_run_on_a_gpu_is_named():
    assert bench.unproven("NVIDIA Something", ["sm80_gemm", "sm80_adam", "sm80_gemm"]) == ["sm80_adam", "sm80_gemm"]
    assert bench.unproven("emulator", ["sm80_gemm"]) == []


@pytest.mark.skipif("emu" not in devices(), reason="needs a build with -DSMELT_EMU=ON (device emu)")
@pytest.mark.parametrize(("peer", "why"), [("torch", "PyTorch has no device 'emu'"), ("jax", "works on the CPU alone")])
def test_peers_without_the_device_are_refused(peer, why, monkeypatch):
    monkeypatch.setitem(sys.modules, peer, types.ModuleType(peer))
    with pytest.raises(ValueError, match=why):
        bench.run("gemm", ["4x4x4"], against=[peer], device="emu")


@pytest.mark.skipif(not _core.why_unavailable("cuda"), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_says_why(capsys):
    assert main(["bench", "gemm", "--shape", "4x4x4", "--device", "cuda"]) == 1
    assert "cuda: no such device: " in capsys.readouterr().err
