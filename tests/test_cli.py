"""The command `smelt`: what it prints and where, exit codes, usage errors, files it reads and writes."""

import argparse
import csv
import gzip
import io
import json
import re
import shlex
import signal
import struct
import sys

import numpy as np
import pytest

import smelt
from smelt import data, datasets, nn
from smelt.cli import main
from smelt.cli.main import build_parser
from smelt.cli.report import last_line
from tests.processes import ROOT, SMELT, run, smelt_command, start

LAST_LINE = re.compile(
    r"test accuracy (\d+\.\d\d) % \((\d+) of (\d+)\), precision \d\.\d\d, recall \d\.\d\d, F1 \d\.\d\d"
)


def commands():
    """The parser of each command by its name."""
    (found,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return found.choices


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Runs a command in this process, in an empty folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run_main(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run_main


def one_object(text):
    """The only JSON object that a text consists of; NaN and Infinity are not JSON."""
    value = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(value, dict) and text.endswith("}\n") and text.count("\n") == 1
    return value


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with all there is in one, what the command printed, and the test set."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = smelt_command("train", "digits", "--epochs", "3", "--out", folder)
    assert done.returncode == 0, done.stderr
    test = data.split(datasets.digits(), 0.2, seed=0)[1]
    return folder, done, test


# ------------------------------------------------------------------------------------------------------------- --help


@pytest.mark.parametrize("name", ["info", "train", "evaluate", "predict"])
def test_help_has_a_text_for_every_option_and_an_example_that_parses(name, call):
    parser = commands()[name]
    code, output, errors = call(name, "--help")
    assert code == 0 and errors == ""
    for action in parser._actions:
        assert action.help and action.help.strip() != "", f"{name} {action.dest} has no text"
        for option in action.option_strings:
            assert option in output
    example = re.search(r"example:\n  smelt (.*)\n", output)
    assert example, f"{name} --help must have an example"
    assert build_parser().parse_args(shlex.split(example[1])).command == name


def test_options_are_those_of_the_design_and_of_the_page():
    expected = {
        "model",
        "epochs",
        "batch-size",
        "lr",
        "device",
        "precision",
        "seed",
        "threads",
        "data",
        "out",
        "resume",
    }
    expected |= {"checkpoint-every", "json", "quiet"}
    assert expected <= {o[2:] for a in commands()["train"]._actions for o in a.option_strings}
    page = ROOT / "docs" / "command-line.md"
    if not page.exists():
        pytest.skip("docs/ is not beside the tests")
    named = set(re.findall(r"--[a-z][a-z-]*", page.read_text()))
    there = {o for p in commands().values() for a in p._actions for o in a.option_strings if o.startswith("--")}
    assert named == there | {"--version"}


def test_version_help_and_module(call, tmp_path):
    assert call("--version") == (0, f"smelt {smelt.__version__}\n", "")
    code, output, _ = call("--help")
    assert code == 0 and all(name in output for name in ("info", "train", "evaluate", "predict", "example"))
    done = run([sys.executable, "-m", "smelt", "--version"], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"smelt {smelt.__version__}\n", "")


# ------------------------------------------------------------------------------------------------------- usage errors


USAGE = {
    "": "command",
    "bogus": "'bogus'",
    "train": "DATASET",
    "train digits --bogus": "--bogus",
    "train digits extra": "extra",
    "train nosuch": "one of digits, mnist, fashion-mnist, kmnist, or an .npz file, got 'nosuch'",
    "train missing.npz": "missing.npz does not exist",
    "train empty.npz": "must hold arrays x and y",
    "train digits --epochs 0": "--epochs: must be a whole number of at least 1, got '0'",
    "train digits --epochs two": "--epochs: must be a whole number of at least 1, got 'two'",
    "train digits --batch-size 0": "--batch-size: must be a whole number of at least 1, got '0'",
    "train digits --checkpoint-every 0": "--checkpoint-every: must be a whole number",
    "train digits --threads 0": "--threads: must be a whole number",
    "train digits --threads 257": "--threads: must be a whole number from 1 to 256, got '257'",
    "evaluate RUN --threads 100000": "--threads: must be a whole number from 1 to 256, got '100000'",
    "train digits --seed -1": r"--seed: must be a whole number from 0 to 2\^64 - 1, got '-1'",
    "train digits --seed 18446744073709551616": "--seed: must be a whole number .* got '18446744073709551616'",
    f"train digits --seed {'9' * 5000}": "--seed: must be a whole number",
    "train digits --device foo": "--device: must be auto, cpu, cuda or cuda:<index>, got 'foo'",
    "train digits --data full": "--data must not name a folder here: digits is in the package, got 'full'",
    "train mine.npz --data full": "--data must not name a folder here: mine.npz is a file of its own, got 'full'",
    "evaluate RUN --data full": "--data must not name a folder here: digits is in the package, got 'full'",
    "evaluate RUN --data nosuch": "--data must not name a folder here",
    "train digits --lr -1": "--lr",
    "train digits --lr nan": "--lr: must be a number above 0, got 'nan'",
    "train digits --seed x": "--seed",
    "train digits --validation 1": r"--validation: must be a number in \[0, 1\), got '1'",
    "train digits --model rnn": "--model.*'rnn'.*mlp.*cnn",
    "train digits --precision int4": "--precision.*'int4'",
    "train digits --out full": "full must be empty, it has files; choose another or pass --resume",
    "train digits --out full/notes.txt": "full/notes.txt must be a folder",
    "train digits --resume": "there is no run to resume",
    "train digits --resume --out nothere": "there is no run to resume in nothere",
    "train digits --resume --out full": "there is no run to resume in full",
    "evaluate": "RUN",
    "evaluate nosuch": "nosuch must be a run folder or a model file",
    "evaluate RUN/model.safetensors": "has no config.json .*--data: digits, mnist, fashion-mnist, kmnist, or an .npz file",
    "evaluate RUN/model.safetensors --data full": "dataset must be one of digits, .* got 'full'",
    "predict nosuch x.npy": "nosuch must be a run folder or a model file, it does not exist",
    "predict full x.npy": "full must be a run folder or a model file, it has no model.safetensors",
    "predict RUN x.npy --out no/labels.csv": "--out must be a file in a folder that exists, got no/labels.csv",
    "predict RUN x.npy --out full": "--out must be a file in a folder that exists, got full",
    "predict RUN missing.npy": "missing.npy does not exist",
    "predict RUN full/notes.txt": "input must end in .npy, .npz, .idx, .png or .csv, got 'notes.txt'",
    "train digits --out RUN --resume --seed 5 --epochs 3": "--seed must be that of the run to resume, 0, got 5",
    "train digits --out RUN --resume --epochs 4": "--epochs must be that of the run to resume, 3, got 4",
}


@pytest.mark.parametrize("arguments", USAGE)
def test_usage_errors_are_one_readable_line(arguments, call, trained, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    np.savez(tmp_path / "empty.npz")
    np.savez(tmp_path / "mine.npz", x=np.zeros((10, 2, 2), np.uint8), y=np.arange(10) % 2)
    before = sorted(p for p in tmp_path.rglob("*"))
    code, output, errors = call(*arguments.replace("RUN", str(trained[0])).split())
    assert code == 2 and output == ""
    assert errors.startswith("smelt") and errors.count("\n") == 1 and errors.endswith("\n") and "usage:" not in errors
    assert re.search(USAGE[arguments], errors)
    assert sorted(p for p in tmp_path.rglob("*")) == before, "a mistake leaves no file"


# -------------------------------------------------------------------------------------------------------------- train


def test_train_prints_a_table_and_the_result(trained):
    folder, done, test = trained
    assert done.stderr == "", "no bar, no warning where standard error is not a terminal"
    lines = done.stdout.splitlines()
    assert re.split(r" {2,}", lines[0].strip()) == [
        "epoch", "train loss", "train acc", "val loss", "val acc", "seconds",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"] and len(lines) == 7
    assert re.fullmatch(rf"run folder {folder}, trained for \d+\.\d s, \d+\.\d s in all", lines[4])
    assert lines[5] in [f"{start}next: smelt predict {folder} INPUT" for start in ("", f"pictures in {folder}/plots; ")]
    assert (folder / "plots").is_dir() == lines[5].startswith("pictures")
    found = LAST_LINE.fullmatch(lines[6])
    assert found, lines[6]
    model = smelt.load(folder)
    with smelt.no_grad():
        right = int((model(model.preprocess(test.x)).argmax(-1).numpy() == test.y).sum())
    assert (int(found[2]), int(found[3])) == (right, 360) and found[1] == f"{100 * right / 360:.2f}"
    assert right > 300, "three epochs learn most digits"


def test_last_line_as_the_readme_has_it():
    values = {"accuracy": 357 / 360, "right": 357, "rows": 360, "precision": 0.9918, "recall": 0.9916, "f1": 0.9917}
    line = "test accuracy 99.17 % (357 of 360), precision 0.99, recall 0.99, F1 0.99"
    assert last_line(values) == line
    readme = ROOT / "README.md"
    assert not readme.exists() or line in readme.read_text()


def test_train_writes_the_run_folder(trained):
    folder, _, test = trained
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    pictures = {f"plots/{name}.png" for name in ("loss", "accuracy", "confusion_matrix")}
    checkpoints = {name for name in names if re.fullmatch(r"checkpoints/step-\d{8}\.safetensors", name)}
    assert len(checkpoints) == 2
    others = {"config.json", "history.csv", "history.json", "metrics.json", "model.safetensors", "log.txt"}
    assert names - pictures == others | checkpoints
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert not names & pictures
    else:
        assert pictures <= names
        assert all((folder / p).read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for p in pictures)
    config = json.loads((folder / "config.json").read_text())
    assert config["argv"] == ["smelt", "train", "digits", "--epochs", "3", "--out", str(folder)]
    assert {"epochs": 3, "batch_size": 64, "seed": 0, "lr": 2e-3, "model": "cnn"}.items() <= config["options"].items()
    assert config["data"]["test"] == {"rows": 360, "sha256": test.sha256()}
    assert config["environment"]["smelt"] == smelt.__version__ and config["environment"]["cpu"]
    with (folder / "history.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    history = json.loads((folder / "history.json").read_text())
    assert [{k: float(v) for k, v in row.items()} for row in table] == history and len(history) == 3
    measured = json.loads((folder / "metrics.json").read_text())["test"]
    assert np.sum(measured["confusion_matrix"]) == 360 and np.trace(measured["confusion_matrix"]) == measured["right"]


def test_train_json_is_one_object_and_the_rest_goes_to_standard_error(tmp_path):
    command = [
        "train",
        "digits",
        "--epochs",
        "1",
        "--model",
        "mlp",
        "--json",
        "--seed",
        "3",
        "--min-accuracy",
        "0.9999",
    ]
    done = smelt_command(*command, cwd=tmp_path)
    assert done.returncode == 1, "the accuracy is below the one asked for"
    result = one_object(done.stdout)
    assert "train loss" in done.stderr and len(done.stderr.splitlines()) == 3
    below = re.fullmatch(
        r"smelt train: test accuracy (0\.\d{4}) is below --min-accuracy 0\.9999", done.stderr.splitlines()[2]
    )
    assert 0 <= result["test"]["accuracy"] - float(below[1]) < 1e-4
    assert re.fullmatch(r"runs/digits-mlp-\d{8}-\d{6}", result["run"]) and (tmp_path / result["run"]).is_dir()
    assert result["seed"] == 3 and result["epochs"] == 1 and 0 < result["test"]["accuracy"] < 0.9999
    assert {"precision", "recall", "f1", "loss", "confusion_matrix"} <= result["test"].keys()
    again = smelt_command("train", "digits", *command[2:7], "--resume", "--quiet", "--seed", "3", cwd=tmp_path)
    assert again.returncode == 0 and again.stderr == "", "the newest run is taken; it is complete"
    assert one_object(again.stdout)["test"] == result["test"]


def test_train_min_accuracy_reached_and_quiet(call, tmp_path):
    code, output, errors = call(
        "train", "digits", "--epochs", "2", "--quiet", "--min-accuracy", "0.5", "--validation", "0", "--out", "r"
    )
    assert code == 0 and errors == "" and len(output.splitlines()) == 3
    assert all("val_loss" not in row for row in json.loads((tmp_path / "r" / "history.json").read_text()))


@pytest.mark.parametrize("shape", [(60, 6, 5), (60, 6, 5, 2), (60, 7)])
def test_train_on_arrays_of_ones_own(shape, call, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.integers(0, 50, shape).astype(np.uint8) + (60 * y).astype(np.uint8).reshape(-1, *[1] * (len(shape) - 1))
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    code, output, errors = call("train", "mine.npz", "--epochs", "2", "--batch-size", "16", "--json", "--model", "mlp")
    assert code == 0, errors
    result = one_object(output)
    assert result["dataset"] == "mine" and result["test"]["rows"] == 12
    code, output, _ = call("evaluate", result["run"], "--data", "mine.npz", "--json")
    assert code == 0 and one_object(output)["test"]["rows"] == 60


def test_ctrl_c_gives_130_and_a_run_to_resume(tmp_path):
    command = [*SMELT, "train", "digits", "--epochs", "12", "--checkpoint-every", "100000", "--out", "run"]
    process = start(command, tmp_path)
    assert process.stdout.readline().split()[0] == "epoch" and process.stdout.readline().split()[0] == "1"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    found = re.fullmatch(r"\nsmelt: interrupted after step (\d+); go on with: smelt (.*) --resume\n", errors)
    assert found and shlex.split(found[2]) == command[len(SMELT) :], errors
    names = [p.name for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert f"step-{int(found[1]):08d}.safetensors" in names and not [n for n in names if n.endswith(".tmp")]
    done = run([*command, "--resume"], tmp_path)
    assert done.returncode == 0 and LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "resumed from run/checkpoints/step-" in log and "starting anew" not in log
    found = re.search(r"trained for (\S+) s since the run began, (\S+) s in this command\n", done.stdout)
    seconds = [row["seconds"] for row in json.loads((tmp_path / "run" / "history.json").read_text())]
    assert found[1] == f"{seconds[-1]:.1f}" and seconds == sorted(seconds)
    assert len(json.loads((tmp_path / "run" / "history.json").read_text())) == 12


@pytest.mark.parametrize("left", [[], [".config.json.1.tmp"]])
def test_a_run_that_was_killed_as_it_began_is_resumed_from_nothing(left, call, tmp_path):
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).write_text("{")
    code, _, errors = call("train", "digits", "--epochs", "1", "--model", "mlp", "--resume", "--out", "run", "--quiet")
    assert (code, errors) == (0, "") and (tmp_path / "run" / "config.json").exists()
    assert not list((tmp_path / "run").glob(".*"))


def test_a_reader_that_goes_away_is_no_crash(tmp_path):
    process = start([*SMELT, "info", "--json"], tmp_path)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=60) == 1
    process.stderr.close()


# ----------------------------------------------------------------------------------------------- evaluate and predict


def test_evaluate_measures_the_same_again(trained, call):
    folder, done, _ = trained
    code, output, errors = call("evaluate", folder)
    assert (code, output, errors) == (0, done.stdout.splitlines()[-1] + "\n", "")
    code, output, errors = call("evaluate", folder, "--json")
    assert code == 0 and errors == ""
    assert one_object(output)["test"] == json.loads((folder / "metrics.json").read_text())["test"]


@pytest.mark.parametrize("data_option", ["digits", "test.npz"])
def test_evaluate_takes_models_of_trainers_and_files(data_option, trained, call, tmp_path):
    folder, done, test = trained
    np.savez(tmp_path / "test.npz", x=test.x, y=test.y)
    checkpoint = sorted((folder / "checkpoints").iterdir())[-1]
    (tmp_path / "bare").mkdir()  # as Trainer.fit leaves it: without config.json
    (tmp_path / "bare" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for path in ("bare", folder / "model.safetensors"):
        code, output, errors = call("evaluate", path, "--data", data_option)
        assert (code, output, errors) == (0, done.stdout.splitlines()[-1] + "\n", "")
    code, output, errors = call("evaluate", checkpoint, "--data", data_option)
    assert code == 0 and LAST_LINE.fullmatch(output.rstrip()), errors


def write_idx(path, array):
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_csv(path, x, header):
    lines = [",".join(f"pixel{i}" for i in range(64))] if header else []
    path.write_text("\n".join(lines + [",".join(map(str, row)) for row in x.reshape(len(x), -1)]) + "\n")


WRITERS = {
    "images.npy": lambda path, x: np.save(path, x),
    "flat.npy": lambda path, x: np.save(path, x.reshape(len(x), -1).astype(np.float64)),
    "images.npz": lambda path, x: np.savez(path, other=np.zeros(3), x=x),
    "first.npz": lambda path, x: np.savez(path, anything=x[..., 0]),
    "images.idx": lambda path, x: write_idx(path, x[..., 0]),
    "images-idx3-ubyte.gz": lambda path, x: write_idx(path, x[..., 0]),
    "images.csv": lambda path, x: write_csv(path, x, False),
    "named.csv": lambda path, x: write_csv(path, x, True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_predict_reads_files(name, trained, call, tmp_path):
    folder, _, test = trained
    x = test.x[:7]
    WRITERS[name](tmp_path / name, x)
    model = smelt.load(folder)
    with smelt.no_grad():
        scores = smelt.softmax(model(model.preprocess(x))).numpy()
    labels = [str(i) for i in scores.argmax(1)]
    assert call("predict", folder, name) == (0, "".join(f"{label}\n" for label in labels), "")
    code, output, _ = call("predict", folder / "model.safetensors", name, "--proba", "--json")
    result = one_object(output)
    assert code == 0 and result["labels"] == labels and result["classes"] == [str(i) for i in range(10)]
    np.testing.assert_array_equal(np.array(result["probabilities"], np.float32), scores)


def test_predict_reads_a_picture(trained, call, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder, _, test = trained
    image.fromarray(test.x[0, :, :, 0]).save(tmp_path / "gray.png")
    image.fromarray(np.repeat(test.x[0], 3, 2)).save(tmp_path / "colour.png")
    np.save(tmp_path / "one.npy", test.x[:1])
    expected = call("predict", folder, "one.npy")
    assert call("predict", folder, "gray.png") == call("predict", folder, "colour.png") == expected


def test_predict_writes_csv(trained, call, tmp_path):
    folder, _, test = trained
    np.save(tmp_path / "x.npy", test.x[:20])
    _, labels, _ = call("predict", folder, "x.npy")
    assert call("predict", folder, "x.npy", "--out", "labels.csv") == (0, "", "")
    assert (tmp_path / "labels.csv").read_text() == "label\n" + labels
    code, output, errors = call("predict", folder, "x.npy", "--out", "more.csv", "--json")
    assert (code, one_object(output), errors) == (0, {"out": "more.csv", "rows": 20}, "")
    assert (tmp_path / "more.csv").read_text() == "label\n" + labels
    _, printed, _ = call("predict", folder, "x.npy", "--proba")
    assert call("predict", folder, "x.npy", "--proba", "--out", "proba.csv") == (0, "", "")
    assert (tmp_path / "proba.csv").read_text() == printed
    table = list(csv.reader(io.StringIO(printed)))
    assert table[0] == ["label", *map(str, range(10))] and [row[0] for row in table[1:]] == labels.split()
    values = np.array([row[1:] for row in table[1:]], float)
    np.testing.assert_allclose(values.sum(1), 1, atol=10 * 0.5e-6 + 10 * 2.0**-24)  # ten numbers with six decimals
    assert [str(i) for i in values.argmax(1)] == labels.split()


# ----------------------------------------------------------------------------------------------------------- failures


def damage(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


FAILURES = {
    "predict RUN wrong.npy": r"images must be \(N, 8, 8, 1\), got shape \(2, 9, 9, 1\)",
    "predict RUN objects.npy": r"objects.npy cannot be read: it is no array of numbers \(pickled .* not read\)$",
    "predict RUN none.npz": "^smelt predict: none.npz must hold an array, it has none$",
    "train nan.npz --out new": r"nan.npz: x must be finite, 2 of 2500 values are not; the first is nan at \(3, 1, 4, 0\)",
    "predict RUN nan.csv": r"inputs must be finite.*first in row 1 of the dataset",
    "predict RUN huge.csv": r"inputs must be finite.*first in row 0 of the dataset",
    "predict diverged.safetensors ones.csv": r"outputs must be finite, the result has 2 values.*row 0 of the dataset",
    "predict RUN cut.npy": "cut.npy cannot be read: ",
    "predict RUN cut.npz": "cut.npz cannot be read: ",
    "predict RUN nothing.npy": "nothing.npy cannot be read: ",
    "train cut.npz": "cut.npz cannot be read: ",
    "predict RUN words.csv": "words.csv must have 64 numbers in each row, row 2 has",
    "predict RUN cut.idx": "cut.idx",
    "predict RUN long.csv": "long.csv cannot be read: field larger than field limit",
    "predict RUN latin.csv": "latin.csv cannot be read: .*utf-8",
    "evaluate EMPTY": "config.json is damaged",
    "evaluate LIST": "config.json is damaged",
    "evaluate NUMBER": "config.json is damaged",
    "evaluate DEEP": "config.json is damaged",
    "train digits --out EMPTY --resume": "config.json is damaged",
    "predict CUT right.npy": "model.safetensors.*truncated or damaged|damaged",
    "evaluate CUT": "model.safetensors",
    "train mnist --data nowhere": "mnist.*nowhere.*SMELT_DATA.*, or run smelt train with --download$",
    "train digits --out file/run": "^smelt train: file/run: Not a directory$",
    "train digits --device cuda --out new": "cuda",
    "train negative.npz --out new": "labels must not be negative, got -1",
}


@pytest.mark.parametrize("arguments", FAILURES)
def test_failures_are_one_line_and_exit_1(arguments, trained, call, tmp_path):
    folder, _, test = trained
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("model.safetensors", "config.json"):
        (broken / name).write_bytes((folder / name).read_bytes())
    damage(broken)
    contents = {"EMPTY": "{}", "LIST": "[]", "NUMBER": '{"options": 3}', "DEEP": "[" * 100_000}
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        (tmp_path / name / "config.json").write_text(content)
    (tmp_path / "long.csv").write_text("1" * 200_000)
    (tmp_path / "latin.csv").write_bytes(b"gr\xfcn,1\n1,2\n")
    np.save(tmp_path / "wrong.npy", np.zeros((2, 9, 9, 1), np.uint8))
    np.save(tmp_path / "right.npy", test.x[:1])
    (tmp_path / "nan.csv").write_text("\n".join([",".join(["1"] * 64), ",".join(["1"] * 63 + ["nan"])]))
    (tmp_path / "ones.csv").write_text(",".join(["1"] * 64))
    (tmp_path / "huge.csv").write_text(",".join(["1e300"] * 64))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    model.load_state_dict({"1.weight": np.full((2, 64), np.nan, np.float32), "1.bias": np.zeros(2, np.float32)})
    smelt.save(model, tmp_path / "diverged.safetensors")
    np.save(tmp_path / "objects.npy", np.array([{}, {}], object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "right.npy").read_bytes()[:-10])
    np.savez_compressed(tmp_path / "cut.npz", x=test.x, y=test.y)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-100])
    (tmp_path / "nothing.npy").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    np.savez(tmp_path / "none.npz")
    x = np.ones((100, 5, 5, 1), np.float32)
    x[3, 1, 4, 0], x[70, 0, 0, 0] = np.nan, np.inf
    np.savez(tmp_path / "nan.npz", x=x, y=np.arange(100) % 2)
    write_csv(tmp_path / "words.csv", test.x[:2], False)
    lines = (tmp_path / "words.csv").read_text().splitlines()
    (tmp_path / "words.csv").write_text(lines[0] + "\n" + lines[1].replace("0", "zero", 1) + "\n")
    write_idx(tmp_path / "cut.idx", test.x[:2, :, :, 0])
    (tmp_path / "cut.idx").write_bytes((tmp_path / "cut.idx").read_bytes()[:-5])
    np.savez(tmp_path / "negative.npz", x=np.zeros((20, 4, 4), np.uint8), y=np.arange(20) % 2 - 1)
    code, output, errors = call(*arguments.replace("RUN", str(folder)).replace("CUT", str(broken)).split())
    assert code == 1 and output == ""
    assert errors.startswith("smelt ") and errors.count("\n") == 1 and len(errors) < 400
    assert re.search(FAILURES[arguments], errors)
    assert not (tmp_path / "new").exists(), "no run has begun"


@pytest.mark.parametrize("variable", ["SMELT_NUM_THREADS", "SMELT_MAX_ISA", "SMELT_DEVICE"])
def test_a_wrong_variable_is_one_line(variable, tmp_path):
    done = smelt_command("info", cwd=tmp_path, **{variable: "abc"})
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert re.fullmatch(rf"smelt info: {variable}: must be .*, got 'abc'\n", done.stderr)


def test_info(call, monkeypatch):
    code, output, errors = call("info")
    assert code == 0 and errors == "" and smelt.__version__ in output
    assert all(re.search(rf"^{word}\b", output, re.M) for word in ("smelt", "cpu", "kernels", "device", "data"))
    code, output, errors = call("info", "--json")
    info = one_object(output)
    assert code == 0 and errors == "" and info["smelt"] == smelt.__version__
    assert info["threads"] == smelt.get_num_threads() and info["devices"]["cpu"]["available"] is True
    assert info["devices"]["cuda"]["available"] or info["devices"]["cuda"]["reason"], "a refusal has a reason"
