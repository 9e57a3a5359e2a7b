"""Files: round trips, the schema, ties, writing all or nothing, and files of older formats."""

import hashlib
import json
import os
import resource
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import smelt
from smelt import data, datasets, nn, serialization
from tests.fixtures import make as fixtures

FIXTURES = Path(__file__).parent / "fixtures"


@smelt.register
class Residual(nn.Module):
    """Layers in a list, options by name, a child given as an argument, and a buffer."""

    def __init__(self, width, depth=2, *, head=None, names=()):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=i > 0) for i in range(depth))
        self.head = head if head is not None else nn.Identity()
        self.names = dict(names)
        self.register_buffer("calls", smelt.zeros(1, dtype="int64"))

    def forward(self, x):
        for layer in self.layers:
            x = x + smelt.relu(layer(x))
        return self.head(x)


@smelt.register
class Tied(nn.Module):
    def __init__(self, width):
        self.table = nn.Embedding(7, width)
        self.out = nn.Linear(width, 7, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x):
        return self.out(self.table(x))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5, activation="relu"), nn.LayerNorm(5), nn.Linear(5, 3, bias=False))


MODELS = {
    "mlp": (mlp, lambda: smelt.randn(4, 2, 3)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(1, 0), groups=2, bias=False),
            nn.Sequential(nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), nn.LeakyReLU(0.2), nn.MaxPool2d((2, 1))),
            nn.Dropout(0.4),
            nn.ConvTranspose2d(4, 4, (2, 3), stride=2, output_padding=(1, 0), groups=2),
            nn.AdaptiveAvgPool2d((2, 1)),
            nn.Flatten(),
            nn.Linear(8, 3),
            nn.Softmax(axis=1),
        ),
        lambda: smelt.randn(3, 6, 5, 2),
    ),
    "sequence": (
        lambda: nn.Sequential(nn.Embedding(9, 4, padding_index=0), nn.Conv1d(4, 6, 3, padding="same"), nn.GELU("tanh")),
        lambda: smelt.tensor([[1, 2, 0], [8, 0, 3]]),
    ),
    "own class": (lambda: Residual(3, depth=3, head=nn.Linear(3, 2), names={"a": [1, 2.5, None]}), lambda: smelt.randn(2, 3)),
    "double": (lambda: mlp().double(), lambda: smelt.randn(2, 6).double()),
    "no parameters": (lambda: nn.Sequential(nn.ReLU(), nn.Identity()), lambda: smelt.randn(3)),
}  # fmt: skip


def saved(path, model=None, **notes):
    smelt.save(model if model is not None else mlp(), path, **notes)
    return path


def header(path):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_with(path, change):
    """The file with another header."""
    head, body = header(path)
    change(head)
    encoded = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)
    return path


def assert_same_state(a, b):
    one, other = a.state_dict(), b.state_dict()
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name].numpy(), other[name].numpy(), err_msg=name)


# --------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name, tmp_path):
    make, inputs = MODELS[name]
    model, x = make(), inputs()
    for _ in range(2):
        model(x)  # moves running statistics
    state = smelt.get_rng_state()
    path = saved(tmp_path / "deep" / "er" / "m.safetensors", model)
    again = smelt.load(path)
    assert smelt.get_rng_state() == state  # neither saving nor loading draws
    assert model.training and not any(m.training for m in again.modules())
    assert repr(again).replace("[", "(").replace("]", ")") == repr(model)  # JSON has no tuples
    assert_same_state(model, again)
    assert all(p.requires_grad for p in again.parameters())
    np.testing.assert_array_equal(again(x).numpy(), model.eval()(x).numpy())
    assert again.labels is again.preprocess is again.metrics is None
    smelt.save(again, tmp_path / "again.safetensors")
    for key in ("smelt.sha256", "smelt.architecture"):
        assert smelt.read_metadata(tmp_path / "again.safetensors")[key] == smelt.read_metadata(path)[key]


def test_half_types_keep_their_bits(tmp_path):
    for dtype in ("bfloat16", "float16"):
        model = nn.Sequential(nn.Linear(3, 3)).to(dtype)
        again = smelt.load(saved(tmp_path / "m.safetensors", model))
        assert again[0].weight.dtype == dtype
        np.testing.assert_array_equal(
            again[0].weight.float().detach().numpy(), model[0].weight.float().detach().numpy()
        )


def test_options_of_layers_survive(tmp_path):
    again = smelt.load(saved(tmp_path / "m.safetensors", MODELS["cnn"][0]()))
    norm = again[1][0]
    assert (norm.eps, norm.momentum, again[1][1].slope, again[2].p, again[7].axis) == (1e-3, 0.3, 0.2, 0.4, 1)
    own = smelt.load(saved(tmp_path / "m.safetensors", MODELS["own class"][0]()))
    assert own.names == {"a": [1, 2.5, None]} and isinstance(own, Residual) and isinstance(own.head, nn.Linear)


def test_notes(tmp_path):
    preprocess = data.ImagePreprocess((2, 3, 1), 1 / 16, [0.25], [0.5])
    notes = {"labels": ["cat", "höhe", '"'], "metrics": {"accuracy": 0.5, "per_class": [1, 2]}, "data": {"name": "x"}}
    path = saved(tmp_path / "m.safetensors", preprocess=preprocess, **notes)
    model = smelt.load(path)
    assert model.labels == notes["labels"] and model.metrics == notes["metrics"]
    images = np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1)
    np.testing.assert_array_equal(model.preprocess(images).numpy(), preprocess(images).numpy())
    metadata = smelt.read_metadata(path)
    assert metadata["smelt.data"] == {"name": "x"} and metadata["smelt.preprocess"] == preprocess.to_json()


def test_ties(tmp_path):
    model = Tied(4)
    path = saved(tmp_path / "m.safetensors", model)
    head, _ = header(path)
    assert sorted(set(head) - {"__metadata__"}) == ["table.weight"]  # one tensor a name, the other is an alias
    assert smelt.read_metadata(path)["smelt.ties"] == {"out.weight": "table.weight"}
    again = smelt.load(path)
    assert again.out.weight is again.table.weight and len(list(again.parameters())) == 1
    x = smelt.tensor([1, 6])
    np.testing.assert_array_equal(again(x).numpy(), model(x).numpy())
    late = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))  # tied after it was built
    late[1].weight = late[0].weight
    again = smelt.load(saved(path, late))
    assert again[1].weight is again[0].weight
    shared = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="the constructor of Sequential must rebuild the model"):
        smelt.save(nn.Sequential(shared, nn.ReLU(), shared), path)


# -------------------------------------------------------------------------------------------------------------- schema


def test_schema_and_other_readers(tmp_path):
    model = MODELS["own class"][0]()
    path = saved(tmp_path / "m.safetensors", model, labels=["a"], data={"n": 1}, metrics={"f1": 0.1})
    head, body = header(path)
    notes = {key: json.loads(value) for key, value in head["__metadata__"].items()}
    assert set(notes) == {
        f"smelt.{key}"
        for key in ("format", "kind", "architecture", "ties", "labels", "metrics", "data", "environment", "sha256")
    }
    assert notes == smelt.read_metadata(path)
    assert (notes["smelt.format"], notes["smelt.kind"], notes["smelt.ties"]) == (1, "model", {})
    linear = {"class": "nn.Linear", "arguments": [3, 2], "options": {}}
    assert notes["smelt.architecture"] == {
        "class": "Residual",
        "arguments": [3],
        "options": {"depth": 3, "head": {"module": linear}, "names": {"dict": {"a": [1, 2.5, None]}}},
    }
    assert {"smelt", "python", "numpy", "cpu", "isa", "threads"} <= set(notes["smelt.environment"])
    arrays = safetensors.numpy.load_file(path)  # any reader of the format
    assert sorted(arrays) == sorted(model.state_dict())
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(arrays[name], t.numpy())
    content = b"".join(arrays[name].tobytes() for name in sorted(arrays))
    assert notes["smelt.sha256"] == hashlib.sha256(content).hexdigest() and len(content) == len(body)


def test_checkpoint_schema(tmp_path):
    made, options = fixtures.trainer()
    validation = datasets.digits().rows(slice(320, 400))
    made.fit(**options, validation=validation, out=tmp_path / "run")
    paths = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [p.name for p in paths] == ["step-00000005.safetensors", "step-00000010.safetensors"]
    for path in paths:
        notes = smelt.read_metadata(path)
        assert notes["smelt.kind"] == "checkpoint" and {"smelt.trainer", "smelt.preprocess", "smelt.labels"} <= set(
            notes
        )
        names = set(header(path)[0]) - {"__metadata__"}
        model = {f"model.{name}" for name in made.model.state_dict()}
        state = {f"optimizer.{s}.{n}" for s in ("exp_avg", "exp_avg_sq") for n, _ in made.model.named_parameters()}
        best = {f"best.{name}" for name in made.model.state_dict()}
        assert names == model | state | best | {"loader.position"}
    last = smelt.load(paths[-1])
    assert set(last.state_dict()) == set(made.model.state_dict()) and last.labels == made.labels
    assert_same_state(smelt.load(tmp_path / "run"), smelt.load(tmp_path / "run" / "model.safetensors"))
    assert smelt.read_metadata(tmp_path / "run")["smelt.kind"] == "model"


# --------------------------------------------------------------------------------------------- classes of one's own


def test_unregistered_and_changed_models_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"

    class Stranger(nn.Module):
        pass

    with pytest.raises(ValueError, match=r"^save: class Stranger must be registered: put @smelt\.register before it$"):
        smelt.save(nn.Sequential(Stranger()), path)
    changed = mlp()
    changed.append(nn.Linear(3, 3))  # a Sequential's arguments are what it holds now
    assert len(smelt.load(saved(path, changed))) == 5
    own = Residual(3)
    own.layers.append(nn.Linear(3, 3))
    path.unlink()
    with pytest.raises(
        ValueError, match=r"the constructor of Residual must rebuild the model, but 'layers\.2\.weight' has"
    ):
        smelt.save(own, path)
    with pytest.raises(
        ValueError, match="arguments of Residual must be numbers, strings, lists, dicts or modules, got set"
    ):
        smelt.save(Residual(3, names={("a", 1)}), path)
    assert list(tmp_path.iterdir()) == []
    saved(path, Residual(3))
    monkeypatch.delitem(serialization._REGISTRY, "Residual")
    with pytest.raises(ValueError, match=r"m\.safetensors.*needs class 'Residual', which is not registered"):
        smelt.load(path)


def test_register_refuses():
    with pytest.raises(TypeError, match="register: needs a class derived from"):
        smelt.register(int)
    other = type("Residual", (nn.Module,), {"__module__": "elsewhere"})
    with pytest.raises(ValueError, match=r"register: the name 'Residual' is taken by .*test_serialization\.Residual"):
        smelt.register(other)
    assert smelt.register(Residual) is Residual  # again, as when a module is reloaded


# ------------------------------------------------------------------------------------------------------ all or nothing


class FileLimit:
    """No file of this process can grow beyond a number of bytes."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        self.old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.old[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.old)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_the_old_model(share, there, tmp_path):
    path = tmp_path / "m.safetensors"
    old, new = nn.Linear(200, 100), nn.Linear(200, 100)
    size = saved(path, nn.Sequential(new)).stat().st_size
    path.unlink()
    if there:
        saved(path, nn.Sequential(old))
    with FileLimit(int(share * size)), pytest.raises(OSError) as caught:
        smelt.save(nn.Sequential(new), path)
    assert str(path) in str(caught.value) and f"cannot write {size} bytes" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == (["m.safetensors"] if there else [])
    if there:
        assert_same_state(smelt.load(path)[0], old)
    smelt.save(nn.Sequential(new), path)
    assert_same_state(smelt.load(path)[0], new)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_full_disk_leaves_the_old_checkpoint(share, tmp_path):
    """The run ends with the error, and goes on from the old checkpoint to the bits of an unbroken one."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 64)).astype("float32"), rng.integers(0, 3, 60)
    options = {"train": (x, y), "epochs": 2, "batch_size": 10, "checkpoint_every": 4}

    def trainer():
        smelt.manual_seed(0)
        return smelt.Trainer(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 3)))

    class Full(smelt.train.Callback):
        limit = None

        def on_step_end(self, trainer, step, loss):
            if step == 5:
                size = (out / "checkpoints" / "step-00000004.safetensors").stat().st_size
                self.limit = FileLimit(int(share * size))
                self.limit.__enter__()

    out, full = tmp_path / "run", Full()
    try:
        with pytest.raises(OSError) as caught:
            trainer().fit(**options, out=out, callbacks=[full])
    finally:
        full.limit.__exit__()
    assert str(out / "checkpoints" / "step-00000008.safetensors") in str(caught.value)
    assert "cannot write" in str(caught.value) and "bytes" in str(caught.value)
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000004.safetensors"]
    assert smelt.load(out / "checkpoints" / "step-00000004.safetensors").state_dict()
    assert not list(out.rglob("*.tmp"))
    trainer().fit(**options, out=out, resume=True)
    trainer().fit(**options, out=tmp_path / "whole")
    assert smelt.read_metadata(out)["smelt.sha256"] == smelt.read_metadata(tmp_path / "whole")["smelt.sha256"]


def test_writing_where_one_cannot(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "folder.safetensors", tmp_path / "file" / "m.safetensors"):
        with pytest.raises(OSError) as caught:
            smelt.save(mlp(), path)
        assert str(tmp_path) in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = saved(tmp_path / "m.safetensors")
    raw = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        smelt.save(mlp(), path)
    assert path.read_bytes() == raw and list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------------- older formats


def test_fixture_of_every_format():
    versions = {int(p.stem.rpartition("-")[2]) for p in FIXTURES.glob("*-format-*.safetensors")}
    assert versions == set(range(1, serialization.FORMAT + 1))


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
@pytest.mark.parametrize("version", range(1, serialization.FORMAT + 1))
def test_old_files_give_known_outputs(kind, version):
    path = FIXTURES / f"{kind}-format-{version}.safetensors"
    assert path.stat().st_size < 60_000
    notes = smelt.read_metadata(path)
    assert notes["smelt.format"] == version and notes["smelt.kind"] == kind
    model = smelt.load(path)
    assert model.labels == [str(i) for i in range(10)]
    if kind == "model":
        assert model.metrics == {"accuracy": 0.5} and notes["smelt.data"] == {"name": "digits", "rows": 320}
    model, x = model.double(), model.preprocess(datasets.digits().x[:5]).double()
    expected = np.array(json.loads((FIXTURES / f"outputs-format-{version}.json").read_text())[kind])
    # Sums of 9 and 64 terms and about 10 other operations, each within 1 unit of what the terms' absolute values sum up to.
    reach = smelt.load(path).double()
    for name, t in reach.state_dict().items():
        t[...] = -abs(t) if name.endswith("running_mean") else abs(t)
    bound = 90 * 2.0**-53 * reach(abs(x)).detach().numpy()
    assert (np.abs(model(x).detach().numpy() - expected) <= bound).all()
    assert bound.max() < 1e-9 * np.abs(expected).max()


def test_old_checkpoints_go_on(tmp_path):
    for version in range(1, serialization.FORMAT + 1):
        out = tmp_path / str(version)
        (out / "checkpoints").mkdir(parents=True)
        shutil.copy(
            FIXTURES / f"checkpoint-format-{version}.safetensors", out / "checkpoints" / "step-00000007.safetensors"
        )
        made, options = fixtures.trainer()
        history = made.fit(**options, out=out, resume=True)
        assert made.steps == 10 and [row["epoch"] for row in history.rows] == [1, 2]
        assert [row["step"] for row in history.rows] == [5, 10]
        whole, options = fixtures.trainer()
        unbroken = whole.fit(**options)
        # Another instruction set may have written the fixture: the losses of two epochs agree to some digits, not bits.
        assert history.rows[1]["train_loss"] == pytest.approx(unbroken.rows[1]["train_loss"], rel=1e-3)
