"""Truncated, damaged, forged and foreign files: one ValueError with the path, and nothing in a file is run."""

import hashlib
import json
import os
import pickle
import re
import struct

import numpy as np
import pytest
import safetensors.numpy

import smelt
from smelt import data, nn
from tests.test_serialization import assert_same_state, header, saved, write_with

# How Python words errors of its own, which say nothing of the file.
RAW = re.compile(
    r"(Type|Key|Attribute|Index)Error|indices must be|object has no|not supported between|unhashable|not iterable"
)


def refused(path, match=None):
    """Loading gives one ValueError with the path."""
    with pytest.raises(ValueError, match=match) as caught:
        smelt.load(path)
    assert str(path) in str(caught.value), caught.value


def test_truncated_files(tmp_path):
    path = saved(tmp_path / "m.safetensors")
    raw = path.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    for length in [0, 1, 7, 8, 9, start // 2, start - 1, start, start + 1, (start + len(raw)) // 2, len(raw) - 1]:
        path.write_bytes(raw[:length])
        refused(path)
        if length < start:
            with pytest.raises(ValueError, match="must be a safetensors file written by smelt"):
                smelt.read_metadata(path)
    path.write_bytes(raw + b"\0")
    refused(path)


def test_flipped_bits_of_tensors_are_noticed(tmp_path, rng):
    path = saved(tmp_path / "m.safetensors")
    raw = path.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    for at in {start, len(raw) - 1, *rng.integers(start, len(raw), 20).tolist()}:
        damaged = bytearray(raw)
        damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        refused(path, "is damaged: sha256 of its tensors must be")


def test_damaged_headers_give_one_clear_error(tmp_path, rng):
    """Any byte of the header: either a ValueError with the path, or the same weights."""
    path = saved(
        tmp_path / "m.safetensors", labels=["a", "b"], preprocess=data.ImagePreprocess((1, 2, 3), 1, [0] * 3, [1] * 3)
    )
    raw, expected = path.read_bytes(), smelt.load(path)
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    refusals = 0
    for _ in range(600):
        damaged = bytearray(raw)
        at = int(rng.integers(0, start))
        damaged[at] = int(rng.choice([damaged[at] ^ (1 << rng.integers(8)), *b'0-"{}[],:ntf']))
        path.write_bytes(damaged)
        try:
            got = smelt.load(path)
        except ValueError as error:
            refusals += 1
            assert str(path) in str(error), (at, error)
        else:
            assert_same_state(got, expected)
    assert refusals > 100


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("smelt.format", '"x"'),
        ("smelt.format", "null"),
        ("smelt.format", "0"),
        ("smelt.format", "[1]"),
        ("smelt.architecture", "3"),
        ("smelt.architecture", "{}"),
        ("smelt.architecture", '{"class": ["nn.ReLU"], "arguments": [], "options": {}}'),
        ("smelt.architecture", '{"class": "nn.ReLU", "arguments": 3, "options": {}}'),
        ("smelt.architecture", '{"class": "nn.ReLU", "arguments": [1], "options": {}}'),
        ("smelt.architecture", '{"class": "nn.Linear", "arguments": ["6", 3], "options": {}}'),
        ("smelt.architecture", '{"class": "nn.Linear", "arguments": [6, 3], "options": {"device": "x"}}'),
        ("smelt.architecture", '{"class": "nn.Dropout", "arguments": [7], "options": {}}'),
        ("smelt.architecture", '{"class": "nn.Linear", "arguments": [1000000000, 1000000000], "options": {}}'),
        (
            "smelt.architecture",
            '{"class": "nn.Sequential", "arguments": [{"module": {"class": "nn.Linear", "arguments": [10000000000, 9], '
            '"options": {}}}], "options": {}}',
        ),
        ("smelt.architecture", '{"class": "os.system", "arguments": ["true"], "options": {}}'),
        ("smelt.architecture", '{"class": "nn.Sequential", "arguments": [{"nodule": 1}], "options": {}}'),
        ("smelt.architecture", '["nn.ReLU", [], {}]'),
        ("smelt.architecture", '{"class": "nn.ReLU", "arguments": [], "options": [1]}'),
        ("smelt.architecture", '{"class": "nn.ReLU", "arguments": []}'),
        ("smelt.architecture", '{"class": "nn.Sequential", "arguments": [3], "options": {}}'),
        ("smelt.architecture", '{"class": "nn.Sequential", "arguments": [{"module": []}], "options": {}}'),
        ("smelt.architecture", '{"class": "nn.Sequential", "arguments": [{"dict": 3}], "options": {}}'),
        ("smelt.architecture", '{"class": "nn.MaxPool2d", "arguments": [{"dict": {}}], "options": {}}'),
        ("smelt.kind", '"picture"'),
        ("smelt.kind", "[]"),
        ("smelt.labels", "3"),
        ("smelt.metrics", "[1]"),
        ("smelt.preprocess", '{"kind": "image", "shape": 3, "scale": 1, "mean": [0], "std": [1]}'),
        ("smelt.preprocess", '{"kind": "image", "shape": [1, 1, 1], "scale": "x", "mean": [0], "std": [1]}'),
        ("smelt.preprocess", '{"kind": "image", "shape": [1, 1, -1], "scale": 1, "mean": [], "std": []}'),
        ("smelt.ties", "[1]"),
        ("smelt.ties", '{"a": ["1.weight"]}'),
        ("smelt.ties", '{"a": {"1.weight": 1}}'),
        ("smelt.ties", '{"1.weight": "1.weight"}'),
        ("smelt.ties", '{"1.weight": "absent"}'),
        ("smelt.ties", '{"absent": "1.weight"}'),
        ("smelt.preprocess", '{"kind": "image"}'),
        ("smelt.preprocess", '{"kind": "audio"}'),
        ("smelt.preprocess", "[]"),
        ("smelt.sha256", "1"),
    ],
)
def test_metadata_that_does_not_fit(key, value, tmp_path):
    path = saved(tmp_path / "m.safetensors", labels=["a"])
    refused(write_with(path, lambda head: head["__metadata__"].update({key: value})))
    with pytest.raises(ValueError) as caught:
        smelt.load(path)
    assert not RAW.search(str(caught.value))


def forged(path, model, tensors, **notes):
    """A file with a right sha256: tensors of any kind in place of the model's own."""
    saved(path, model)
    head, _ = header(path)
    raw = b"".join(tensors[name][2] for name in sorted(tensors))
    new, at = {"__metadata__": head["__metadata__"]}, 0
    for name in sorted(tensors):
        dtype, shape, content = tensors[name]
        new[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    new["__metadata__"]["smelt.sha256"] = json.dumps(hashlib.sha256(raw).hexdigest())
    new["__metadata__"].update({f"smelt.{key}": json.dumps(value) for key, value in notes.items()})
    encoded = json.dumps(new).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + raw)
    return path


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": ("BOOL", [2, 1], b"\1\0")}, "'weight' must be floating by the architecture, got bool"),
        ({"weight": ("BOOL", [2, 1], b"\2\xff")}, "bytes of a bool tensor must be 0 or 1"),
        ({"weight": ("I64", [2, 1], bytes(16))}, "'weight' must be floating by the architecture, got int64"),
        ({"weight": ("U8", [2, 1], bytes(2))}, "'weight' must be floating by the architecture, got uint8"),
        ({"weight": ("I16", [2, 1], bytes(4))}, "dtype I16, which is not supported"),
        ({"weight": ("F32", [1] * 19 + [2], bytes(8))}, "at most 8 axes"),
        ({"weight": ("F32", [1, 2], bytes(8))}, "'weight' must have shape"),
        ({"weight": ("F32", [0, 2**62], b"")}, "'weight' must have shape|cannot be made"),
        ({}, "'weight' must have shape"),
    ],
)
def test_forged_tensors(tensors, message, tmp_path):
    refused(forged(tmp_path / "m.safetensors", nn.Linear(1, 2, bias=False), tensors), message)


def test_forged_buffers_and_ties(tmp_path):
    path, norm, floats = tmp_path / "m.safetensors", nn.BatchNorm1d(1), ("F32", [1], bytes(4))
    good = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), floats)
    good["batches"] = ("I64", [], bytes(8))
    assert smelt.load(forged(path, norm, good)).batches.item() == 0
    refused(forged(path, norm, {**good, "batches": ("F32", [], bytes(4))}), "'batches' must be integer")
    refused(forged(path, norm, {**good, "running_var": ("I32", [1], bytes(4))}), "'running_var' must be floating")
    del good["weight"]
    refused(forged(path, norm, good, ties={"weight": "running_mean"}), "must tie parameters to parameters")
    assert smelt.load(forged(path, norm, good, ties={"weight": "bias"})).weight.item() == 0
    refused(forged(path, norm, good, ties={"weight": ["bias"]}), "smelt.ties must give further names to tensors")


def test_nesting_is_bounded(tmp_path):
    path = saved(tmp_path / "m.safetensors")
    deep = "[" * 100_000 + "]" * 100_000
    refused(write_with(path, lambda head: head["__metadata__"].update({"smelt.labels": deep})))


def test_foreign_files(tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({"weight": np.ones(3, np.float32)}, path)
    refused(path, "its header has no smelt.format")
    safetensors.numpy.save_file({"weight": np.ones(3, np.float32)}, path, metadata={"format": "pt"})
    refused(path, "its header has no smelt.format")
    for content in (b"", b"hello, this is text\n" * 50, b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(5000), b"\xff" * 5000):
        path.write_bytes(content)
        refused(path, "must be a safetensors file written by smelt")
    newer = write_with(saved(path), lambda head: head["__metadata__"].update({"smelt.format": "2"}))
    refused(newer, "has format 2, this version of smelt reads up to 1: upgrade smelt")
    with pytest.raises(ValueError, match="has format 2"):
        smelt.read_metadata(newer)
    for missing in (tmp_path / "absent.safetensors", tmp_path):
        for reader in (smelt.load, smelt.read_metadata):
            with pytest.raises(FileNotFoundError):
                reader(missing)


def test_nothing_in_a_file_is_run(tmp_path):
    victim = tmp_path / "victim"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(victim),)

    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    refused(path, "must be a safetensors file written by smelt")
    description = {"class": "os.mkdir", "arguments": [str(victim)], "options": {}}
    saved(path)
    refused(write_with(path, lambda head: head["__metadata__"].update({"smelt.architecture": json.dumps(description)})))
    assert not victim.exists()
