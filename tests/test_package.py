"""The package as users get it: what an import loads, dependencies, types, stubs, version, words."""

import importlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import smelt
from tests.processes import PACKAGE, ROOT, TIMEOUT, environment, python, run

RUN_TIME = {"numpy", "safetensors", "tqdm"}
LATER = {f"smelt.{name}" for name in ("bench", "cli", "data", "datasets", "metrics", "serialization", "train")}
# What the import may not load: other ring, extras, and the standard library's slow parts that nothing at import needs.
HEAVY = {
    "matplotlib", "PIL", "torch", "scipy", "sklearn", "pandas", "tqdm", "safetensors", "multiprocessing", "asyncio",
    "urllib.request", "http", "ssl", "argparse", "unittest", "pytest",
}  # fmt: skip


def pyproject():
    path = ROOT / "pyproject.toml"
    if not path.exists():
        pytest.skip("pyproject.toml is not beside the tests")
    return path.read_text()


def loaded_by(code):
    """Names of modules that code loads beyond `import numpy`."""
    out = python(
        f"import numpy, sys, json; before = set(sys.modules)\n{code}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    return set(json.loads(out))


def test_import_loads_little():
    loaded = loaded_by("import smelt")
    assert "smelt._core" in loaded and not loaded & (HEAVY | LATER)
    foreign = {n.split(".")[0] for n in loaded} - {"smelt", "numpy"} - set(sys.stdlib_module_names)
    assert not {n for n in foreign if not n.startswith("_")}, "only NumPy and the standard library"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("smelt.Trainer", "smelt.train"),
        ("smelt.data", "smelt.data"),
        ("smelt.datasets.digits", "smelt.datasets"),
        ("smelt.metrics.Accuracy", "smelt.metrics"),
        ("smelt.save", "smelt.serialization"),
        ("smelt.bench.compare", "smelt.bench"),
    ],
)
def test_other_parts_load_when_first_used(code, name):
    loaded = loaded_by(f"import smelt\nassert '{name}' not in sys.modules\n{code}")
    assert name in loaded and not loaded & {"matplotlib", "PIL", "tqdm", "torch"}


def test_public_names_are_there():
    for name in smelt.__all__:
        assert getattr(smelt, name) is not None and name in dir(smelt)
    assert len(set(smelt.__all__)) == len(smelt.__all__)
    with pytest.raises(AttributeError, match="module 'smelt' has no attribute 'nosuch'"):
        smelt.nosuch  # noqa: B018


def test_command_line_starts_without_heavy_modules():
    assert not loaded_by("import smelt.cli") & {"matplotlib", "PIL", "tqdm", "torch"}


# ------------------------------------------------------------------------------------------------- metadata and files


def requirement_names(lines):
    return {re.match(r"[A-Za-z0-9_.-]+", line)[0].lower() for line in lines}


def test_dependencies_at_run_time_are_three():
    text = pyproject()
    listed = re.search(r"^dependencies = \[(.*?)\]", text, re.M | re.S)[1]
    assert requirement_names(re.findall(r'"(.*?)"', listed)) == RUN_TIME


def test_installed_metadata_agree():
    try:
        distribution = importlib.metadata.distribution("smelt")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("smelt is on the path, not installed")
    assert distribution.version == smelt.__version__
    assert requirement_names(r for r in distribution.requires if "extra ==" not in r) == RUN_TIME
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    (entry,) = (e for e in distribution.entry_points if e.group == "console_scripts")
    assert entry.name == "smelt" and entry.load() is importlib.import_module("smelt.cli").main
    script = Path(sysconfig.get_path("scripts")) / "smelt"
    if script.exists():
        assert run([str(script), "--version"]).stdout == f"smelt {smelt.__version__}\n"


def test_version_is_one():
    assert re.search(r'^version = "(.*)"', pyproject(), re.M)[1] == smelt.__version__
    assert smelt._core.__version__ == smelt.__version__
    assert re.search(rf"^## \[?{re.escape(smelt.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_command_is_declared():
    assert re.search(r'^\[project\.scripts\]\nsmelt = "smelt\.cli:main"$', pyproject(), re.M)
    assert callable(importlib.import_module("smelt.cli").main) and importlib.util.find_spec("smelt.__main__")


def test_package_data_is_there():
    for name in ("py.typed", "_core.pyi", "datasets/digits_data/digits.csv.gz", "datasets/digits_data/LICENSE.txt"):
        assert (PACKAGE / name).is_file(), name
    licence = (PACKAGE / "datasets" / "digits_data" / "LICENSE.txt").read_text()
    assert re.search(r"CC BY 4\.0|Creative Commons Attribution 4\.0", licence) and "Alpaydin" in licence
    assert (PACKAGE / "datasets" / "digits_data" / "digits.csv.gz").stat().st_size < 64 << 10


@pytest.mark.parametrize("name", ["make_stubs", "make_api"])
def test_generated_files_are_up_to_date(name):
    """The file in this folder is what the tool makes of the package under test, installed or not."""
    tool = ROOT / "tools" / f"{name}.py"
    if not tool.exists():
        pytest.skip("tools/ is not beside the tests")
    done = run([sys.executable, str(tool), "--check"])
    assert done.returncode == 0, done.stderr


USER_SCRIPT = """
import numpy as np
import smelt
from smelt import Tensor, data, datasets, kernels, losses, metrics, nn, optim, schedule


class Net(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def forward(self, x: Tensor) -> Tensor:
        return smelt.softmax(self.layers(x), axis=-1) * 2.0 + 1


class Note(smelt.train.Callback):
    def on_step_end(self, trainer: smelt.Trainer, step: int, loss: float) -> None:
        trainer.stop = step > 3


def train(epochs: int) -> float:
    train_set, test_set = data.split(datasets.digits(), 0.2, seed=0)
    model = Net(hidden=32)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    rate = schedule.cosine(100)
    accuracy = metrics.Accuracy()
    for x, y in data.Loader(train_set, 64, shuffle=True):
        optimizer.lr = 1e-3 * rate(optimizer.steps)
        logits = model(x.float().flatten(1) / 16)
        loss: Tensor = losses.cross_entropy(logits, y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracy.update(logits, y)
    trainer = smelt.Trainer(model, metrics=["accuracy"], optimizer=optimizer)
    history = trainer.fit(train_set, validation=test_set, epochs=epochs, callbacks=[Note()])
    names: list[str] = [str(row["epoch"]) for row in history]
    with smelt.no_grad():
        x = smelt.tensor([[1.0, 2.0]], dtype="float32")
        z = smelt.matmul(x, x.T)[0] + np.ones(1, np.float32) - (2 ** x).sum()
        shape: tuple[int, ...] = z.shape
    smelt.save(model, "m.safetensors", labels=names)
    again: nn.Module = smelt.load("m.safetensors")
    _ = kernels.impls("gemm"), again, shape
    return float(loss.item()) + float(z.item())
"""
MISTAKES = {
    'smelt.relu("x", 1, 2)\n': "call-arg|arg-type",
    "value: int = smelt.zeros(2).relu()\n": "assignment|attr-defined",
    'optim.AdamW([], rate="fast")\n': "call-arg",
    "smelt.zeros(2).no_such_method()\n": "attr-defined",
}


def check_types(folder, text):
    """mypy --strict on a script of a user's; the package is found as an installed one is."""
    (folder / "script.py").write_text(text)
    variables = environment()
    variables.pop("MYPYPATH", None)
    if PACKAGE.parent not in {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}:
        variables["MYPYPATH"] = str(PACKAGE.parent)
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={folder / 'cache'}", "script.py"],
        cwd=folder, env=variables, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip


def test_mypy_strict_passes_on_a_users_script_and_finds_mistakes(tmp_path):
    pytest.importorskip("mypy")
    done = check_types(tmp_path, USER_SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr
    start = USER_SCRIPT.count("\n") + 1
    done = check_types(tmp_path, USER_SCRIPT + "".join(MISTAKES))
    for number, codes in enumerate(MISTAKES.values(), start):
        assert re.search(rf"script\.py:{number}: error: .*\[({codes})\]", done.stdout), done.stdout


# --------------------------------------------------------------------------------------------------------------- words

# Marks of unfinished work, pickle in code that reads files, and folders of one machine. Written so that this file passes.
WORDS = [
    r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", r"\bXX" + r"X\b", r"\bHA" + r"CK\b", r"#if " + r"0\b",
    r"raise NotImpl" + r"emented", r"(?<![\w.~])/(root|home|work|Users)/\w",
]  # fmt: skip
SUFFIXES = {".py", ".pyi", ".cpp", ".h", ".md", ".toml", ".sh", ".txt", ".cmake", ".yml"}


def sources():
    if (ROOT / "csrc").is_dir():
        folders = [ROOT / name for name in ("csrc", "cmake", "python", "tests", "bench", "examples", "docs", "tools")]
        return [p for f in folders for p in f.rglob("*")] + list(ROOT.glob("*"))
    return list(PACKAGE.rglob("*"))


def test_no_unfinished_work_and_no_paths_of_one_machine():
    files = [p for p in sources() if p.suffix in SUFFIXES and p.is_file()]
    assert len(files) > 40
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if any(re.search(word, line) for word in WORDS)
    ]
    assert found == []


def test_nothing_is_unpickled():
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(
            r"^\s*(import|from) (pickle|shelve|marshal)\b|allow_pickle=True|(?<![.\w])(?<!def )eval\(",
            path.read_text(),
            re.M,
        ), path
