"""Every public name has a docstring, every function and class an example, and the examples are true."""

import doctest
import importlib
import inspect
import pkgutil
import types

import numpy as np
import pytest

import smelt
from smelt import data, datasets, kernels, losses, metrics, nn, optim, schedule, train

# Names that examples use without importing them.
NAMES = {
    "np": np,
    "smelt": smelt,
    **{
        m.__name__.rpartition(".")[2]: m for m in (data, datasets, kernels, losses, metrics, nn, optim, schedule, train)
    },
}
# Constants whose class speaks for them.
CONSTANTS = (str, smelt.DType, types.GenericAlias)


def is_public(name):
    return all(not part.startswith("_") for part in name.split("."))


def public_modules():
    names = ["smelt"]
    for info in pkgutil.walk_packages(smelt.__path__, "smelt."):
        if is_public(info.name):
            names.append(info.name)
    return [importlib.import_module(name) for name in names]


MODULES = {m.__name__: m for m in public_modules()}


def exported(module):
    """Names that a module offers: its __all__, else what is defined in it."""
    if hasattr(module, "__all__"):
        return [(name, getattr(module, name)) for name in module.__all__]
    members = [(n, v) for n, v in vars(module).items() if is_public(n) and callable(v)]
    return [(n, v) for n, v in members if getattr(v, "__module__", None) == module.__name__]


def members(cls):
    """What a class defines itself and is public: methods, properties."""
    for name, value in vars(cls).items():
        if not is_public(name):
            continue
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if callable(value) or isinstance(value, property):
            yield name, value


def public_objects():
    """(path, object) of every public function, class, method and property of the package, each once."""
    found = {}
    for module in MODULES.values():
        for name, value in exported(module):
            if not (inspect.isclass(value) or inspect.isroutine(value)) or isinstance(value, CONSTANTS):
                continue
            found.setdefault(id(value), (f"{module.__name__}.{name}", value))
            if inspect.isclass(value) and value.__module__.startswith("smelt") and value is not smelt.Tensor:
                for member_name, member in members(value):
                    found.setdefault(id(member), (f"{module.__name__}.{name}.{member_name}", member))
    for name, member in members(smelt.Tensor):  # its methods are functions that were put onto the compiled class
        found.setdefault(id(member), (f"smelt.Tensor.{name}", member))
    return dict(found.values())


OBJECTS = public_objects()


def needs_example(path, value):
    """Names that a package offers do; a method that users define or never call themselves has that of its class."""
    module = next(path[:i] for i in range(len(path), 0, -1) if path[:i] in MODULES)
    method = path.rpartition(".")[2]
    shown_by_class = method in {"forward", "backward", "reset", "update", "compute"} or method.startswith("on_")
    return hasattr(MODULES[module], "__all__") and not isinstance(value, property) and not shown_by_class


def test_the_walk_finds_the_package():
    assert len(MODULES) > 30 and len(OBJECTS) > 250
    for name in (
        "smelt.matmul",
        "smelt.nn.Linear",
        "smelt.Trainer",
        "smelt.optim.Optimizer.step",
        "smelt.Tensor.backward",
    ):
        assert any(p.rpartition("smelt.")[2].endswith(name[6:]) for p in OBJECTS), name


@pytest.mark.parametrize("name", MODULES)
def test_modules_have_docstrings_and_names_that_exist(name):
    module = MODULES[name]
    assert (module.__doc__ or "").strip() or name.endswith("__main__"), f"{name} has no docstring"
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names), "__all__ names something twice"
    for exported_name in names:
        assert hasattr(module, exported_name)


def test_public_objects_have_docstrings_and_examples():
    without_text, without_example = [], []
    for path, value in OBJECTS.items():
        text = inspect.getdoc(value) or ""
        if not text.strip():
            without_text.append(path)
        elif ">>> " not in text and needs_example(path, value):
            without_example.append(path)
    assert not without_text, f"no docstring: {without_text}"
    assert not without_example, f"no example: {without_example}"


def test_arguments_are_described():
    """A function that describes its arguments describes all of them, and none that it does not have."""
    wrong = []
    for path, value in OBJECTS.items():
        text = inspect.cleandoc(value.__doc__ or "")  # its own, not a base class's
        if "\nArgs:\n" not in text or isinstance(value, property):
            continue
        section = text.split("\nArgs:\n")[1].split("\n\n")[0]
        lines = [line for line in section.splitlines() if line[4:5] not in ("", " ")]
        described = [name.strip(" *") for line in lines for name in line.split(":")[0].split(",")]
        parameters = inspect.signature(value).parameters if value is not smelt.Tensor else ("data",)
        taken = {p for p in parameters if p != "self"} - ({"cls"} - set(described))
        if len(described) != len(set(described)) or set(described) != taken:
            wrong.append(f"{path}: describes {described}, takes {taken}")
    assert not wrong, "\n".join(wrong)


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=False)
    for path, value in OBJECTS.items():
        if isinstance(value, property):
            continue
        for test in finder.find(value, path, globs=dict(NAMES)):
            if test.examples:
                yield test
    for name, module in MODULES.items():
        yield from (t for t in finder.find(module, name, globs=dict(NAMES)) if t.examples)


def is_run(test):
    return not all(example.options.get(doctest.SKIP) for example in test.examples)


ALL_EXAMPLES = {test.name: test for test in examples()}
EXAMPLES = {name: test for name, test in ALL_EXAMPLES.items() if is_run(test)}


def test_only_downloads_have_examples_that_are_not_run():
    assert set(ALL_EXAMPLES) - set(EXAMPLES) <= {f"smelt.datasets.{n}" for n in ("mnist", "fashion_mnist", "kmnist")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    test = EXAMPLES[name]
    test.globs = dict(NAMES)  # what one example defines another does not see
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    result = runner.run(test, out=report.append, clear_globs=False)
    assert result.failed == 0, "".join(report)
    assert result.attempted > 0
