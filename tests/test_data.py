"""Datasets in memory, splits, batches, preprocessing, idx files, and downloads from a server on loopback."""

import gzip
import hashlib
import http.client
import http.server
import importlib
import math
import re
import struct
import threading

import numpy as np
import pytest

import smelt
from smelt import data, datasets

MNIST = importlib.import_module("smelt.datasets.mnist")  # the package's name `mnist` is the function


def numbered(n, classes=3):
    return data.ArrayDataset(np.arange(n, dtype=np.float32)[:, None], np.arange(n) % classes)


# ------------------------------------------------------------------------------------------------------------ datasets


def test_array_dataset(rng):
    x, y = rng.normal(size=(6, 2)), np.arange(6)
    d = data.ArrayDataset(x, smelt.tensor(y), labels=range(6))
    assert len(d) == 6 and d.x is x and d.labels == [str(i) for i in range(6)]
    np.testing.assert_array_equal(d[2:4][0], x[2:4])
    assert d[3][1] == 3 and d.rows(np.array([True, False] * 3)).y.tolist() == [0, 2, 4]
    assert d.rows([5, 0]).labels == d.labels and data.ArrayDataset(x)[1][1] is None
    assert repr(d) == "ArrayDataset(x=float64(6, 2), y=int64(6,))"
    same = data.ArrayDataset(x.copy(), y.copy())
    assert same.sha256() == d.sha256()
    for other in (data.ArrayDataset(x[::-1], y), data.ArrayDataset(x.astype("float32"), y), data.ArrayDataset(x),
                  data.ArrayDataset(x.reshape(6, 1, 2), y)):  # fmt: skip
        assert other.sha256() != d.sha256()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: data.ArrayDataset(np.zeros((3, 2)), np.zeros(4)),
            ValueError,
            "x and y must have one length, got 3 and 4",
        ),
        (lambda: data.ArrayDataset(np.array(["a", "b"])), TypeError, "x must be numbers, got dtype <U1"),
        (lambda: data.ArrayDataset(np.zeros(2), np.array([None, 1])), TypeError, "y must be numbers, got dtype object"),
        (lambda: data.ArrayDataset(3.0), ValueError, "x must have rows, got a single number"),
        (lambda: data.Loader(numbered(4), 0), ValueError, "Loader: batch_size must be at least 1, got 0"),
        (lambda: data.Loader(numbered(4), -3), ValueError, "Loader: batch_size must be at least 1, got -3"),
        (lambda: data.Loader(numbered(0), 2), ValueError, "Loader: the dataset must have at least one row, got none"),
        (
            lambda: data.Loader(numbered(3), 4, drop_last=True),
            ValueError,
            "Loader: drop_last leaves nothing of 3 rows in batches of 4",
        ),
        (lambda: data.split(numbered(4), 0.0), ValueError, "split: fraction must be above 0 and below 1, got 0.0"),
        (lambda: data.split(numbered(4), 1.0), ValueError, "split: fraction must be above 0 and below 1, got 1.0"),
        (
            lambda: data.split(numbered(4), float("nan")),
            ValueError,
            "split: fraction must be above 0 and below 1, got nan",
        ),
        (lambda: data.split(numbered(1), 0.5), ValueError, "split: 0.5 of 1 rows leaves a part empty"),
        (lambda: data.split(numbered(0), 0.5), ValueError, "split: 0.5 of 0 rows leaves a part empty"),
        (
            lambda: data.split(data.ArrayDataset(np.zeros(4), np.linspace(0, 1, 4)), 0.5),
            ValueError,
            "split: stratify needs one integer class for each row; pass stratify=False",
        ),
        (
            lambda: data.split(data.ArrayDataset(np.zeros(4)), 0.5),
            ValueError,
            "split: stratify needs one integer class",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


@pytest.mark.parametrize("fraction", [0.2, 0.1, 1 / 3, 0.97])
@pytest.mark.parametrize("stratify", [True, False])
def test_split(fraction, stratify, rng):
    n = 97
    d = data.ArrayDataset(np.arange(n), rng.choice([0, 3, 7], n, p=[0.7, 0.2, 0.1]))
    first, second = data.split(d, fraction, stratify=stratify, seed=4)
    wanted = math.ceil(fraction * n)
    assert len(second) == wanted and len(first) == n - wanted
    assert sorted([*first.x, *second.x]) == list(range(n))
    for part in (first, second):
        assert (np.diff(part.x) > 0).all()  # the old order
        np.testing.assert_array_equal(part.y, d.y[part.x])
    if stratify:
        for c in (0, 3, 7):
            assert abs((second.y == c).sum() - (d.y == c).sum() * wanted / n) < 1
    again, other = (data.split(d, fraction, stratify=stratify, seed=s)[1] for s in (4, 5))
    np.testing.assert_array_equal(again.x, second.x)
    assert fraction > 0.9 or not np.array_equal(other.x, second.x)


def test_split_of_rare_classes_and_of_digits():
    d = data.ArrayDataset(np.arange(11), np.array([0] * 9 + [1, 2]))
    for seed in range(5):
        first, second = data.split(d, 0.2, seed=seed)
        assert len(second) == 3 and 2 <= (second.y == 0).sum() <= 3 and len(first) == 8
    train, test = data.split(datasets.digits(), 0.2, seed=0)
    assert (len(train), len(test)) == (1437, 360)
    share = np.bincount(datasets.digits().y) * (360 / 1797)
    assert (np.abs(np.bincount(test.y) - share) < 1).all()
    assert hashlib.sha256(test.x.tobytes()).hexdigest() != hashlib.sha256(train.x[:360].tobytes()).hexdigest()


# -------------------------------------------------------------------------------------------------------------- loader


def order(loader):
    return [int(v) for x, _ in loader for v in x.numpy()[:, 0]]


def test_batches():
    d = numbered(10)
    loader = data.Loader(d, 4)
    batches = list(loader)
    assert len(loader) == 3 and [x.shape for x, _ in batches] == [(4, 1), (4, 1), (2, 1)]
    assert order(data.Loader(d, 4)) == list(range(10))
    assert len(data.Loader(d, 4, drop_last=True)) == 2 and order(data.Loader(d, 4, drop_last=True)) == list(range(8))
    assert [y.tolist() for _, y in data.Loader(d, 100)] == [(np.arange(10) % 3).tolist()]
    assert next(iter(data.Loader(data.ArrayDataset(np.zeros(3)), 2)))[1] is None
    types = {
        "float64": "float32",
        "float32": "float32",
        "uint8": "uint8",
        "int16": "int64",
        "uint16": "int64",
        "bool": "bool",
    }
    for given, got in types.items():
        x, y = next(iter(data.Loader(data.ArrayDataset(np.ones(2, given), np.ones(2, np.int32)), 2)))
        assert x.dtype == got and y.dtype == "int32" and x.numpy().all()
    batches[0][0][0] = 99.0  # a batch is a copy
    assert d.x[0, 0] == 0


def test_shuffling_depends_on_seed_and_epoch_alone():
    d, seen = numbered(50), {}
    for seed in (0, 1, 2**63 + 5, -1):
        loader = data.Loader(d, 7, shuffle=True, seed=seed)
        for epoch in range(3):
            smelt.rand(3)  # nothing to do with the generator
            seen[seed, epoch] = order(loader)
            assert sorted(seen[seed, epoch]) == list(range(50))
            assert loader.state_dict() == {"epoch": epoch + 1, "position": 0, "seed": seed}
    assert len({tuple(v) for v in seen.values()}) == len(seen)
    for batch in (1, 8, 50, 64):  # any batch size sees the rows in one order
        loader = data.Loader(d, batch, shuffle=True, seed=1)
        assert [order(loader) for _ in range(3)] == [seen[1, e] for e in range(3)]
    state = smelt.get_rng_state()
    order(data.Loader(d, 7, shuffle=True, seed=1))
    assert smelt.get_rng_state() == state


KNOWN_ORDER = [6, 7, 3, 0, 2, 1, 4, 5]
KNOWN_SPLIT = [0.0, 2.0, 5.0, 8.0, 9.0, 11.0]


def test_known_orders():
    """A change of the shuffling would break resuming runs of older versions."""
    assert order(data.Loader(numbered(8), 8, shuffle=True, seed=0)) == KNOWN_ORDER
    assert data.split(numbered(12, 1), 0.5, stratify=False, seed=0)[1].x[:, 0].tolist() == KNOWN_SPLIT


def test_shuffling_is_even():
    """Over 600 epochs every row comes first about as often: chi-squared with 9 degrees, at most 9 + 5 deviations."""
    loader = data.Loader(numbered(10), 10, shuffle=True, seed=3)
    counts = np.bincount([order(loader)[0] for _ in range(600)], minlength=10)
    assert ((counts - 60) ** 2 / 60).sum() <= 9 + 5 * math.sqrt(18)


def test_position_is_resumed():
    d = numbered(23)
    whole = data.Loader(d, 5, shuffle=True, seed=9)
    expected = [[y.tolist() for _, y in whole] for _ in range(3)]
    loader = data.Loader(d, 5, shuffle=True, seed=9)
    list(loader)
    rows = iter(loader)
    start = [next(rows)[1].tolist() for _ in range(2)]
    state = loader.state_dict()
    assert state == {"epoch": 1, "position": 2, "seed": 9}
    other = data.Loader(d, 5, shuffle=True)
    other.load_state_dict(state)
    assert start + [y.tolist() for _, y in other] == expected[1]
    assert [y.tolist() for _, y in other] == expected[2]


# ------------------------------------------------------------------------------------------------------- preprocessing


def test_preprocessing(rng):
    images = rng.integers(0, 256, (40, 5, 4, 3)).astype(np.uint8)
    images[..., 2] = 7  # a channel without spread
    p = data.ImagePreprocess.fit(images)
    assert p.shape == (5, 4, 3) and p.scale == 1 / 255
    exact = images.astype(np.float64).reshape(-1, 3) / 255
    # Both are float64 sums of 800 numbers below 1.
    np.testing.assert_allclose(p.mean, exact.mean(0), rtol=0, atol=800 * 2.0**-53)
    np.testing.assert_allclose(p.std, [*exact.std(0)[:2], 1.0], rtol=0, atol=800 * 2.0**-53 / exact.std(0)[:2].min())
    y = p(images)
    assert y.dtype == "float32" and y.shape == images.shape
    want = (images / 255.0 - np.array(p.mean)) / np.array(p.std)
    # Four roundings, of numbers up to 255 * scale / std + mean / std.
    bound = 4 * 2.0**-24 * (1 + np.array(p.mean)) / np.array(p.std)
    assert (np.abs(y.numpy() - want) <= bound).all()
    again = data.ImagePreprocess.from_json(p.to_json())
    np.testing.assert_array_equal(again(images).numpy(), y.numpy())
    grey = data.ImagePreprocess.fit(images[..., 0])
    for form in (images[..., 0], images[..., :1], images[..., 0].reshape(40, 20), smelt.tensor(images[..., 0])):
        np.testing.assert_array_equal(grey(form).numpy(), grey(images[..., 0]).numpy())


def test_preprocessing_errors():
    p = data.ImagePreprocess((5, 4, 3), 1, [0] * 3, [1] * 3)
    for shape in ((2, 3, 5, 4), (5, 4, 3), (2, 5, 4), (2, 59), (60,), ()):
        message = f"preprocess: images must be (N, 5, 4, 3), got shape {shape}"
        with pytest.raises(ValueError, match=re.escape(message)):
            p(np.zeros(shape))
    assert p(np.zeros((0, 5, 4, 3))).shape == (0, 5, 4, 3)
    assert np.isnan(p(np.full((1, 5, 4, 3), np.nan)).numpy()).all()  # passed on, for the trainer to refuse
    for make, message in (
        (lambda: data.ImagePreprocess.fit(np.zeros((0, 2, 2, 1))), "needs at least one image, got none"),
        (
            lambda: data.ImagePreprocess.fit(np.zeros((3, 4))),
            "images must be (N, H, W, C) or (N, H, W), got shape (3, 4)",
        ),
        (lambda: data.ImagePreprocess.fit(np.full((1, 2, 2, 1), np.nan)), "images must be finite"),
        (lambda: data.ImagePreprocess.fit(np.full((1, 2, 2, 1), np.inf)), "images must be finite"),
        (lambda: data.ImagePreprocess((2, 2), 1, [0], [1]), "shape must be (H, W, C), got (2, 2)"),
        (
            lambda: data.ImagePreprocess((2, 2, 1), 1, [0, 0], [1, 1]),
            "must have 1 numbers, got [0.0, 0.0] and [1.0, 1.0]",
        ),
        (lambda: data.ImagePreprocess((2, 2, 1), 1, [0], [0]), "finite mean and positive std must have 1 numbers"),
        (lambda: data.ImagePreprocess((2, 2, 1), 1, [math.nan], [1]), "must have 1 numbers, got [nan]"),
        (lambda: data.ImagePreprocess((2, 2, 1), 1, [0], [math.nan]), "must have 1 numbers, got [0.0] and [nan]"),
        (
            lambda: data.ImagePreprocess.fit(np.array([1.0, 2, np.nan, np.inf]).reshape(2, 2, 1)),
            "ImagePreprocess: images must be finite, 2 of 4 values are not; the first is nan at (1, 0, 0, 0)",
        ),
        (
            lambda: data.ImagePreprocess.fit(np.ones((2, 2, 1)), 0),
            "ImagePreprocess: maximum must be finite and above 0",
        ),
        (lambda: data.ImagePreprocess.from_json({"kind": "text"}), "preprocess: kind must be 'image', got 'text'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            make()


def test_nan_in_data_is_refused_by_the_trainer():
    x = np.zeros((8, 2, 2, 1), np.float32)
    x[5, 1, 0, 0] = np.nan
    model = smelt.nn.Sequential(smelt.nn.Flatten(), smelt.nn.Linear(4, 2))
    before = model[1].weight.detach().numpy().copy()
    trainer = smelt.Trainer(model, preprocess=data.ImagePreprocess((2, 2, 1), 1, [0], [1]))
    with pytest.raises(
        ValueError, match=r"Trainer: inputs must be finite, step 1 has 1 values .* \(first in row 5 of the"
    ):
        trainer.fit((x, np.zeros(8, np.int64)), epochs=1, shuffle=False)
    np.testing.assert_array_equal(model[1].weight.detach().numpy(), before)


# -------------------------------------------------------------------------------------------------------- digits, idx


def test_digits():
    d = datasets.digits()
    assert d.x.shape == (1797, 8, 8, 1) and d.x.dtype == np.uint8 and d.x.max() == 16 and d.y.dtype == np.int64
    assert np.bincount(d.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as UCI describes the set
    assert d.labels == [str(i) for i in range(10)]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".idx", ".gz"])
def test_idx_round_trip(dtype, suffix, tmp_path, rng):
    path = tmp_path / f"a{suffix}"
    for shape in ((3, 2, 5), (7,), (0, 4), ()):
        array = np.asarray(rng.normal(size=shape) * 50).astype(dtype)
        datasets.write_idx(path, array)
        got = datasets.read_idx(path)
        assert got.dtype == np.dtype(dtype) and got.shape == shape and got.flags.writeable
        np.testing.assert_array_equal(got, array)
    with pytest.raises(TypeError, match=r"write_idx: dtype must be one of uint8, .*, got int64"):
        datasets.write_idx(path, np.arange(3))


def test_idx_bytes(tmp_path):
    """The format's own description: two zeros, type, rank, big-endian extents, big-endian values."""
    path = tmp_path / "a.idx"
    path.write_bytes(bytes([0, 0, 0x0B, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x01, 0x02, 0xFF, 0xFE]))
    assert datasets.read_idx(path).tolist() == [[258, -2]]
    datasets.write_idx(path, np.array([258, -2], np.int16))
    assert path.read_bytes() == bytes([0, 0, 0x0B, 1, 0, 0, 0, 2, 0x01, 0x02, 0xFF, 0xFE])


def test_damaged_idx_files(tmp_path):
    path, good = tmp_path / "images-idx3-ubyte", tmp_path / "good"
    datasets.write_idx(good, np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    raw = good.read_bytes()
    cases = [(raw[:n], rf"must have a header of 16 bytes, the file has {n}") for n in (4, 10, 15)]
    cases += [(raw[:n], rf"must have 40 bytes for shape \(2, 3, 4\), it has {n}") for n in (16, 39)]
    cases += [(raw[:n], "must begin with an idx header, got") for n in (0, 1, 3)]
    cases += [
        (raw + b"x", "must have 40 bytes .* it has 41"),
        (b"\x89PNG" + raw[4:], "must begin with an idx header, got 89504e47"),
        (b"\0\0\x0a\3" + raw[4:], "must begin with an idx header, got 00000a03"),  # no such type
        (b"\0\1" + raw[2:], "must begin with an idx header, got 00010803"),
        (raw[:4] + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1) + raw[16:], "it has 40"),  # nothing is allocated
        (gzip.compress(raw), "must begin with an idx header, got 1f8b"),  # gzipped, without the name
        (b"\0\0\x08\xff" + raw[4:] * 50, "read_idx"),  # 255 axes
    ]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            datasets.read_idx(path)
        assert str(path) in str(caught.value)
    zipped = gzip.compress(raw)
    flipped = bytearray(zipped)
    flipped[-6] ^= 1  # the checksum
    middle = bytearray(zipped)
    middle[14] ^= 255
    path = tmp_path / "a.gz"
    for content in (zipped[:-1], zipped[:20], b"", b"\x1f\x8b", raw, bytes(flipped), bytes(middle), zipped + b"tail"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="read_idx") as caught:
            datasets.read_idx(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError):
        datasets.read_idx(tmp_path / "absent")


# ---------------------------------------------------------------------------------------------------------- downloads

CONTENT = bytes(range(256)) * 900


class Handler(http.server.BaseHTTPRequestHandler):
    """Files that behave as their first path component says."""

    def do_GET(self):
        self.server.log.append((self.path, self.headers.get("Range")))
        kind, name = self.path.lstrip("/").split("/")
        content = self.server.files.get(name, CONTENT)
        start = 0
        if kind == "missing":
            return self.send_error(404)
        if kind == "broken":
            return self.send_error(500)
        if kind == "wrong":
            content = content[::-1]
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if requested and kind != "norange":
            start = int(requested[1])
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if kind == "hang":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            return self.server.release.wait(20)
        # "cut" breaks off in the middle, each time
        self.wfile.write(body[: len(body) // 2] if kind == "cut" else body)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.log, made.files, made.release = [], {}, threading.Event()
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.release.set()
    made.shutdown()
    thread.join()
    made.server_close()


DIGEST = hashlib.sha256(CONTENT).hexdigest()


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_download(server, tmp_path):
    path = tmp_path / "sets" / "a.bin"
    assert datasets.download([f"{server.url}/good/a"], path, DIGEST) == path
    assert path.read_bytes() == CONTENT and names(path.parent) == ["a.bin"]
    datasets.download([f"{server.url}/good/a"], path, DIGEST)  # there already
    assert server.log == [("/good/a", None)]
    path.write_bytes(b"damaged")
    datasets.download([f"{server.url}/good/a"], path, DIGEST)
    assert path.read_bytes() == CONTENT


def test_download_resumes(server, tmp_path):
    path, part = tmp_path / "a.bin", tmp_path / "a.bin.part"
    half, quarter = len(CONTENT) // 2, len(CONTENT) // 4
    with pytest.raises(OSError, match=rf"the connection broke off after {half} of {len(CONTENT)} bytes"):
        datasets.download([f"{server.url}/cut/a"], path, DIGEST)
    assert names(tmp_path) == ["a.bin.part"] and part.read_bytes() == CONTENT[:half]
    with pytest.raises(OSError, match="the connection broke off"):
        datasets.download([f"{server.url}/cut/a"], path, DIGEST)
    assert part.read_bytes() == CONTENT[: half + quarter]
    datasets.download([f"{server.url}/good/a"], path, DIGEST)
    assert [entry[1] for entry in server.log] == [None, f"bytes={half}-", f"bytes={half + quarter}-"]
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("left", "kind"),
    [
        (CONTENT[:1000], "norange"),  # a server that sends all again
        (b"wrong" * 100, "good"),  # of something else: once more from the start
        (CONTENT, "good"),  # complete: nothing is missing
        (CONTENT + b"x", "good"),  # longer than the file
    ],
)
def test_leftovers_of_all_kinds(left, kind, server, tmp_path):
    path = tmp_path / "a.bin"
    (tmp_path / "a.bin.part").write_bytes(left)
    datasets.download([f"{server.url}/{kind}/a"], path, DIGEST)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["a.bin"]


def test_mirrors(server, tmp_path):
    path = tmp_path / "a.bin"
    bad = ["missing", "broken", "wrong", "cut"]
    refused = "http://127.0.0.1:9/a"  # the discard port: nobody listens
    datasets.download([refused, *(f"{server.url}/{kind}/a" for kind in (*bad, "good"))], path, DIGEST)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["a.bin"]
    assert [entry[0] for entry in server.log] == [f"/{kind}/a" for kind in (*bad, "good")]
    path.unlink()
    with pytest.raises(OSError) as caught:
        datasets.download([refused, *(f"{server.url}/{kind}/a" for kind in ("missing", "wrong"))], path, DIGEST)
    text = str(caught.value)
    assert text.startswith("download: no mirror gave a.bin: ") and "404" in text and "refused" in text.lower()
    assert f"sha256 must be {DIGEST}, got {hashlib.sha256(CONTENT[::-1]).hexdigest()}" in text
    assert names(tmp_path) == []  # what is known to be wrong is not kept


def test_a_mirror_that_stops_answering(server, tmp_path):
    path = tmp_path / "a.bin"
    datasets.download([f"{server.url}/hang/a", f"{server.url}/good/a"], path, DIGEST, timeout=0.3)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["a.bin"]
    assert server.log[1] == ("/good/a", f"bytes={len(CONTENT) // 2}-")


def test_an_interrupted_download_can_go_on(server, tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    monkeypatch.setattr("smelt.datasets.fetch._CHUNK", 4096)
    real, reads = http.client.HTTPResponse.read1, []

    def read(self, *args):
        reads.append(1)
        if len(reads) == 4:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", read)
    with pytest.raises(KeyboardInterrupt):
        datasets.download([f"{server.url}/good/a"], path, DIGEST)
    part = (tmp_path / "a.bin.part").read_bytes()
    assert names(tmp_path) == ["a.bin.part"] and len(part) > 0 and CONTENT.startswith(part)
    monkeypatch.setattr(http.client.HTTPResponse, "read1", real)
    datasets.download([f"{server.url}/good/a"], path, DIGEST)
    assert server.log[-1][1] == f"bytes={len(part)}-" and path.read_bytes() == CONTENT


def tiny_mnist(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", 6), ("t10k", 4)):
        datasets.write_idx(folder / f"{part}-images-idx3-ubyte.gz", np.arange(n * 12, dtype=np.uint8).reshape(n, 3, 4))
        datasets.write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(n, dtype=np.uint8))


@pytest.mark.parametrize(("load", "name"), [(datasets.mnist, "mnist"), (datasets.fashion_mnist, "fashion-mnist"),
                                            (datasets.kmnist, "kmnist")])  # fmt: skip
def test_idx_datasets(load, name, server, tmp_path, monkeypatch):
    monkeypatch.setenv("SMELT_DATA", str(tmp_path / "sets"))
    with pytest.raises(
        FileNotFoundError, match=rf"{name}: .*train-images-idx3-ubyte\.gz is not there; .*download=True"
    ):
        load()
    assert not (tmp_path / "sets").exists()  # nothing is fetched unless asked for
    tiny_mnist(tmp_path / "source")
    files = {p.name: p.read_bytes() for p in (tmp_path / "source").iterdir()}
    server.files.update(files)
    fingerprints = {n.removesuffix(".gz"): hashlib.sha256(v).hexdigest() for n, v in files.items()}
    monkeypatch.setitem(MNIST._MIRRORS, name, (f"{server.url}/missing/", f"{server.url}/good/"))
    monkeypatch.setitem(MNIST._SHA256, name, fingerprints)
    train, test = load(download=True)
    folder = tmp_path / "sets" / name
    assert train.x.shape == (6, 3, 4, 1) and test.x.shape == (4, 3, 4, 1) and names(folder) == sorted(files)
    assert train.y.dtype == np.int64 and train.y.tolist() == list(range(6)) and len(train.labels) == 10
    for stem in fingerprints:  # unpacked files, in both spellings, are read too
        raw = gzip.decompress((folder / f"{stem}.gz").read_bytes())
        (folder / (stem if "images" in stem else stem.replace("-idx", ".idx"))).write_bytes(raw)
        (folder / f"{stem}.gz").unlink()
    again, _ = load(tmp_path / "sets")
    assert again.sha256() == train.sha256()
    datasets.write_idx(folder / "train-labels.idx1-ubyte", np.zeros(5, np.uint8))
    with pytest.raises(ValueError, match=rf"{name}: train images and labels must be .*got \(6, 3, 4\) and \(5,\)"):
        load()
    (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\3")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte must have a header of 16 bytes"):
        load()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_real_idx_datasets(name, data_folder):
    if not (data_folder / name.replace("_", "-")).is_dir():
        pytest.skip(f"SMELT_DATA has no {name}")
    train, test = getattr(datasets, name)()
    assert train.x.shape == (60000, 28, 28, 1) and test.x.shape == (10000, 28, 28, 1) and train.x.dtype == np.uint8
    assert np.bincount(test.y, minlength=10).sum() == 10000 and train.y.min() == 0 and train.y.max() == 9
    if name == "mnist":
        assert np.bincount(train.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        mean, std = train.x.mean() / 255, train.x.std() / 255
        assert (round(float(mean), 4), round(float(std), 4)) == (0.1307, 0.3081)  # the numbers that everybody knows
    else:
        assert np.bincount(train.y).tolist() == [6000] * 10 and np.bincount(test.y).tolist() == [1000] * 10


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("SMELT_DATA", str(tmp_path))
    assert datasets.data_root() == tmp_path and datasets.data_root("x").name == "x"
    monkeypatch.delenv("SMELT_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert datasets.data_root() == tmp_path / "home" / ".cache" / "smelt"
