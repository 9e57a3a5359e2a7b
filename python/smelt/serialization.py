"""Models in files: safetensors with JSON metadata, never pickle.

A model's architecture is the names of registered classes and their JSON arguments; loading never imports or runs what a
file names. The schema is in docs/checkpoints.md.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import platform
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from . import _core, nn
from ._core import Tensor
from .nn.module import Module, Parameter

__all__ = ["load", "read_metadata", "register", "save"]

FORMAT = 1
_SAFETENSORS_NAMES = {
    "F32": "float32", "F64": "float64", "BF16": "bfloat16", "F16": "float16",
    "I64": "int64", "I32": "int32", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip

M = TypeVar("M", bound=type[Module])

# ------------------------------------------------------------------------------------------------------ architectures

_REGISTRY: dict[str, type[Module]] = {
    f"nn.{name}": value
    for name in nn.__all__
    if isinstance(value := getattr(nn, name), type) and issubclass(value, Module) and value is not Module
}
_NAMES: dict[type[Module], str] = {cls: name for name, cls in _REGISTRY.items()}


def register(cls: M) -> M:
    """Class decorator: lets models of a class of one's own be saved and loaded. The class's name identifies it in files.

    The constructor's arguments are kept in the file, so they must be JSON values or modules.

    Args:
        cls: a class derived from :class:`smelt.nn.Module`.

    Returns:
        The class itself.

    Raises:
        TypeError: it is not a module class.
        ValueError: another class has registered the name.

    Example:
        >>> @smelt.register
        ... class TwoLayers(nn.Module):
        ...     def __init__(self, hidden):
        ...         super().__init__()
        ...         self.first, self.second = nn.Linear(4, hidden), nn.Linear(hidden, 2)
        ...
        ...     def forward(self, x):
        ...         return self.second(smelt.relu(self.first(x)))
    """
    if not (isinstance(cls, type) and issubclass(cls, Module)):
        raise TypeError(f"register: needs a class derived from nn.Module, got {cls!r}")
    name = cls.__name__
    old = _REGISTRY.get(name)
    if old is not None and (old.__module__, old.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"register: the name {name!r} is taken by {old.__module__}.{old.__qualname__}")
    _REGISTRY[name] = cls
    _NAMES[cls] = name
    return cls


def architecture(module: Module) -> dict[str, Any]:
    """The JSON description from which :func:`build` makes an equal module."""
    cls = type(module)
    if cls not in _NAMES:
        raise ValueError(f"save: class {cls.__name__} must be registered: put @smelt.register before it")
    positional, keyword = module._arguments
    if hasattr(module, "_architecture_arguments"):
        positional, keyword = tuple(module._architecture_arguments()), {}

    def encode(value: Any) -> Any:
        if isinstance(value, Module):
            return {"module": architecture(value)}
        if value is None or isinstance(value, (bool, int, float, str)):
            return exact(value)
        if isinstance(value, np.generic):
            return exact(value.item())
        if isinstance(value, (list, tuple)):
            return [encode(item) for item in value]
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {"dict": {key: encode(item) for key, item in value.items()}}
        raise ValueError(
            f"save: arguments of {cls.__name__} must be numbers, strings, lists, dicts or modules, got {type(value).__name__}"
        )

    return {
        "class": _NAMES[cls],
        "arguments": [encode(v) for v in positional],
        "options": {k: encode(v) for k, v in keyword.items()},
    }


def build(description: Any) -> Module:
    """A new module from :func:`architecture`."""
    kinds = {"class": str, "arguments": list, "options": dict}
    good = isinstance(description, dict) and set(description) == set(kinds)
    if not good or not all(isinstance(description[key], kind) for key, kind in kinds.items()):
        raise ValueError(
            "load: an architecture must be a dict of 'class' (a string), 'arguments' (a list) and 'options' (a dict), "
            f"got {_shortened(description)}"
        )
    name = description["class"]
    if name not in _REGISTRY:
        raise ValueError(
            f"load: the file needs class {name!r}, which is not registered: import the code that defines it"
        )

    def decode(value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {"module"}:
                return build(value["module"])
            if set(value) == {"float"}:
                return restored(value)
            if set(value) != {"dict"} or not isinstance(value["dict"], dict):
                raise ValueError(
                    f"load: a dict among arguments must have 'module', 'dict' or 'float' alone, got {_shortened(value)}"
                )
            return {key: decode(item) for key, item in value["dict"].items()}
        return [decode(item) for item in value] if isinstance(value, list) else value

    cls = _REGISTRY[name]
    arguments = [decode(v) for v in description["arguments"]]
    options = {k: decode(v) for k, v in description["options"].items()}
    try:
        inspect.signature(cls).bind(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"load: arguments in the file do not fit class {name!r}: {error}") from None
    try:
        return cls(*arguments, **options)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"load: class {name!r} does not take the arguments in the file: {error}") from error


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


# ----------------------------------------------------------------------------------------------------------- the file


def _raw(tensor: Tensor) -> bytes:
    """The bytes, little-endian and row-major."""
    x = _core.contiguous(_core.to_device(tensor._detach(), "cpu"))
    if x.dtype == "bfloat16":  # NumPy has no such dtype: the bits as they are
        return x._bytes()
    return np.ascontiguousarray(x.numpy()).tobytes()


def fingerprint(raw: Mapping[str, bytes]) -> str:
    """sha256 over the tensors' bytes in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(raw):
        digest.update(raw[name])
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Versions and machine, as files and run folders record them."""
    return {
        "smelt": _core.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _core.cpu_model(),
        "isa": _core.max_isa(),
        "threads": _core.num_threads(),
    }


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as every reader takes it: null where a number is NaN or infinite."""

    def plain(item: Any) -> Any:
        if isinstance(item, (float, np.floating)):
            return float(item) if np.isfinite(item) else None
        if isinstance(item, dict):
            return {key: plain(entry) for key, entry in item.items()}
        return [plain(entry) for entry in item] if isinstance(item, (list, tuple)) else item

    return json.dumps(plain(value), indent=indent, default=str, allow_nan=False)


def exact(value: Any) -> Any:
    """JSON values from which :func:`restored` makes the same ones, NaN and infinity too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    return [exact(item) for item in value] if isinstance(value, (list, tuple)) else value


def restored(value: Any) -> Any:
    """The inverse of :func:`exact`."""
    if isinstance(value, dict):
        if list(value) == ["float"] and isinstance(value["float"], str):
            return float(value["float"])
        return {key: restored(item) for key, item in value.items()}
    return [restored(item) for item in value] if isinstance(value, list) else value


def write_atomically(path: Path, content: bytes) -> None:
    """The file has the old content or all of the new one, whatever happens meanwhile; no other file is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"cannot write {len(content)} bytes: {error.strerror}", str(path)) from None
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _entry(dtype: str, shape: list[int], raw: bytes) -> Any:
    """What safetensors.serialize takes for a tensor; ``raw`` must stay alive until then."""
    import safetensors

    if not hasattr(safetensors, "TensorSpec"):  # before version 0.8
        return {"dtype": dtype, "shape": shape, "data": raw}
    address = np.frombuffer(raw, np.uint8).ctypes.data if raw else 0
    return safetensors.TensorSpec(dtype=dtype, shape=shape, data_ptr=address, data_len=len(raw))


def write_file(path: Path, kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes tensors and JSON metadata as a safetensors file of this library's format."""
    import safetensors

    ties: dict[str, str] = {}
    content: dict[str, Any] = {}
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    raw: dict[str, bytes] = {}
    for name, tensor in tensors.items():
        where = (tensor._address(), tensor.shape)
        if tensor.size and first.setdefault(where, name) != name:
            ties[name] = first[where]
            continue
        raw[name] = _raw(tensor)
        content[name] = _entry(str(tensor.dtype), list(tensor.shape), raw[name])
    notes = {
        "smelt.format": FORMAT,
        "smelt.kind": kind,
        "smelt.ties": ties,
        "smelt.environment": environment(),
        "smelt.sha256": fingerprint(raw),
        **metadata,
    }
    encoded = {key: json_text(value) for key, value in notes.items()}
    write_atomically(path, safetensors.serialize(content, encoded))


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file of this library's format, verified."""
    import safetensors

    content = path.read_bytes()
    metadata = _metadata(path, content)
    try:
        entries: Any = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except Exception as error:  # safetensors raises its own class, which has no public name in all versions
        raise ValueError(f"load: {path} is truncated or damaged: {error}") from None
    raw = {name: bytes(entry["data"]) for name, entry in entries}
    found, expected = fingerprint(raw), metadata.get("smelt.sha256")
    if found != expected:
        raise ValueError(f"load: {path} is damaged: sha256 of its tensors must be {expected}, got {found}")
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS_NAMES:
            raise ValueError(f"load: tensor {name!r} of {path} has dtype {entry['dtype']}, which is not supported")
        try:
            tensors[name] = _from_raw(raw[name], _SAFETENSORS_NAMES[entry["dtype"]], entry["shape"])
        except (MemoryError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"load: tensor {name!r} of {path} cannot be made: {error}") from None
    ties = metadata.get("smelt.ties", {})
    good = isinstance(ties, dict) and all(isinstance(target, str) and target in tensors for target in ties.values())
    if not good or any(name in tensors for name in ties):
        raise ValueError(
            f"load: {path} is damaged: smelt.ties must give further names to tensors of the file, got {_shortened(ties)}"
        )
    tensors.update({name: tensors[target] for name, target in ties.items()})
    return tensors, metadata


def _from_raw(raw: bytes, dtype: str, shape: list[int]) -> Tensor:
    if dtype == "bool" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise ValueError("bytes of a bool tensor must be 0 or 1")
    out = _core.empty(list(shape), dtype, "cpu")
    out._set_bytes(raw)
    return out


def _metadata(path: Path, content: bytes) -> dict[str, Any]:
    problem = f"load: {path} must be a safetensors file written by smelt"
    if len(content) < 8:
        raise ValueError(f"{problem}; it has {len(content)} bytes")
    length = struct.unpack("<Q", content[:8])[0]
    if length > len(content) - 8:
        raise ValueError(f"{problem}; its header has {length} bytes, the file {len(content)}")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = {key: json.loads(value) for key, value in header["__metadata__"].items() if key.startswith("smelt.")}
        version = metadata["smelt.format"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{problem}; its header has no smelt.format") from None
    if type(version) is not int or version < 1:
        raise ValueError(f"{problem}; its smelt.format is {version!r}")
    if version > FORMAT:
        raise ValueError(
            f"load: {path} has format {version}, this version of smelt reads up to {FORMAT}: upgrade smelt"
        )
    return metadata


# ------------------------------------------------------------------------------------------------------------- public


def save(
    model: Module,
    path: Any,
    labels: list[str] | None = None,
    preprocess: Any = None,
    metrics: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model to one file: architecture, weights, and what is needed to use it.

    The file appears all at once: a crash or a full disk leaves the old one as it was.

    Args:
        model: made of registered classes.
        path: the file, ``.safetensors`` by custom.
        labels: names of the classes.
        preprocess: what turns raw values into inputs, such as a :class:`smelt.data.ImagePreprocess`.
        metrics: what was measured, JSON values.
        data: what it was trained on, JSON values.

    Raises:
        ValueError: a class is not registered, or the model was changed after it was built in a way that its
            constructor's arguments do not show.
        OSError: the file cannot be written; the message has path and bytes.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "m.safetensors"
        >>> smelt.save(nn.Sequential(nn.Linear(2, 3)), path)
        >>> smelt.load(path)
        Sequential(
          (0): Linear(2, 3, bias=True)
        )
    """
    if not isinstance(model, Module):
        raise TypeError(
            f"save: model must be a Module, got {type(model).__name__}; tensors alone are for safetensors or numpy.savez"
        )
    write_file(Path(path), "model", model.state_dict(), model_metadata(model, labels, preprocess, metrics, data))


def model_metadata(model: Module, labels: Any, preprocess: Any, metrics: Any, data: Any) -> dict[str, Any]:
    description = architecture(model)
    _check_rebuilds(model, description)
    metadata: dict[str, Any] = {"smelt.architecture": description}
    for key, value in (("labels", labels), ("metrics", metrics), ("data", data)):
        if value is not None:
            metadata[f"smelt.{key}"] = value
    if preprocess is not None:
        metadata["smelt.preprocess"] = preprocess.to_json()
    return metadata


def _shapes(description: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes of a description's tensors, without making them; None where the constructor reads values."""
    state = _core.generator_state()
    _core.set_dry_run(True)
    try:
        return {name: tuple(t.shape) for name, t in build(description).state_dict().items()}
    except RecursionError:
        raise
    except RuntimeError:  # tensors have no values here
        return None
    finally:
        _core.set_dry_run(False)
        _core.set_generator_state(*state)


def _check_rebuilds(model: Module, description: Mapping[str, Any]) -> None:
    other = _shapes(description)
    if other is None:  # loading will tell
        return
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    for name in [*own, *other]:
        if own.get(name) != other.get(name):
            raise ValueError(
                f"save: the constructor of {type(model).__name__} must rebuild the model, but '{name}' has shape "
                f"{own.get(name)} in the model and {other.get(name)} when rebuilt"
            )


def load(path: Any) -> Module:
    """A model from a file or a run folder, in evaluation mode.

    Args:
        path: a file written by :func:`save` or by a trainer, or a run folder (its best model is taken).

    Returns:
        The model; it has the attributes ``labels``, ``preprocess`` and ``metrics``, None where the file has none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, newer than this version, or names a class that is not registered.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "m.safetensors"
        >>> smelt.save(nn.Sequential(nn.Linear(2, 2)), path, labels=["cat", "dog"])
        >>> smelt.load(path).labels
        ['cat', 'dog']
    """
    file = Path(path)
    if file.is_dir():
        file = file / "model.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"load: there is no file {file}")
    tensors, metadata = read_file(file)
    if "smelt.architecture" not in metadata:
        raise ValueError(f"load: {file} has weights but no architecture")
    for key, kinds, need in _NOTES:
        if key in metadata and not isinstance(metadata[key], kinds):
            raise ValueError(f"load: {file}: {key} must be {need}, got {_shortened(metadata[key])}")
    state = _core.generator_state()
    try:
        return _restore(tensors, metadata)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"load: {file}: {text.removeprefix('load: ')}") from error
    finally:
        _core.set_generator_state(*state)  # initial weights were drawn, and overwritten


_NOTES = (
    ("smelt.labels", (list, type(None)), "a list"),
    ("smelt.metrics", (dict, type(None)), "a dict"),
)


def _kind(dtype: Any) -> str:
    return "floating" if dtype.is_floating else "bool" if dtype == "bool" else "integer"


def _restore(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Module:
    kind, ties = metadata.get("smelt.kind"), metadata.get("smelt.ties", {})
    if kind == "checkpoint":
        tensors = {name[6:]: t for name, t in tensors.items() if name.startswith("model.")}
        ties = {name[6:]: target.removeprefix("model.") for name, target in ties.items() if name.startswith("model.")}
    elif kind != "model":
        raise ValueError(f"smelt.kind must be 'model' or 'checkpoint', got {kind!r}")
    # A damaged number must not make a huge model: shapes are compared before there is memory.
    shapes = _shapes(metadata["smelt.architecture"])
    if shapes is not None:
        for name, shape in shapes.items():
            found = tuple(tensors[name].shape) if name in tensors else None
            if found != shape:
                raise ValueError(f"'{name}' must have shape {shape} by the architecture, got {found}")
    model = build(metadata["smelt.architecture"])
    own = model.state_dict()
    for name, value in own.items():
        if name in tensors and _kind(tensors[name].dtype) != _kind(value.dtype):
            raise ValueError(f"'{name}' must be {_kind(value.dtype)} by the architecture, got {tensors[name].dtype}")
    for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
        if name in tensors and tensors[name].shape == own[name].shape and tensors[name].dtype != own[name].dtype:
            parameter._set_data(_core.cast(own[name], tensors[name].dtype))
    model.load_state_dict(tensors)
    _restore_ties(model, ties)
    preprocess = metadata.get("smelt.preprocess")
    if preprocess is not None:
        from .data import ImagePreprocess

        preprocess = ImagePreprocess.from_json(preprocess)
    model.__dict__.update(
        labels=metadata.get("smelt.labels"), preprocess=preprocess, metrics=metadata.get("smelt.metrics")
    )
    return model.eval()


def _restore_ties(model: Module, ties: Mapping[str, str]) -> None:
    modules = dict(model.named_modules())

    def place(name: str) -> tuple[Module, str]:
        path, _, attribute = name.rpartition(".")
        return modules[path], attribute

    for name, target in ties.items():
        owner, attribute = place(name)
        source, original = place(target)
        tied = [isinstance(value, Parameter) for value in (getattr(owner, attribute), getattr(source, original))]
        if tied[0] != tied[1]:
            raise ValueError(f"smelt.ties must tie parameters to parameters, got '{name}' and '{target}'")
        if tied[0]:
            setattr(owner, attribute, getattr(source, original))


def read_metadata(path: Any) -> dict[str, Any]:
    """What a file says of itself, without its tensors.

    Args:
        path: a file written by smelt, or a run folder.

    Returns:
        JSON values under ``smelt.format``, ``smelt.kind``, ``smelt.architecture`` and so on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not one of smelt's, or newer than this version.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "m.safetensors"
        >>> smelt.save(nn.Sequential(nn.ReLU()), path)
        >>> smelt.read_metadata(path)["smelt.kind"]
        'model'
    """
    file = Path(path)
    if file.is_dir():
        file = file / "model.safetensors"
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        size = file.stat().st_size
        body = stream.read(length) if length <= size else b""
    return _metadata(file, head + body)
