"""README and docs: every block runs, every link leads somewhere, every page can be reached; the examples run."""

import gzip
import json
import os
import re
import shlex
import struct
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from tests.processes import ROOT, TIMEOUT, environment, run

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
NOT_RUN = {"", "text", "cpp"}  # listings, excerpts of files, sources that need a build
# Executes blocks of a page in one namespace; tracebacks have the page's line numbers.
EXECUTE = """
import json, sys
page, blocks = json.load(sys.stdin)
namespace = {"__name__": "__main__"}
for line, text in blocks:
    exec(compile("\\n" * line + text, page, "exec"), namespace)
"""


@dataclass(frozen=True)
class Block:
    line: int  # of the fence, from 1
    language: str
    text: str
    reason: str  # why it is not run, or ""


def blocks(page):
    lines = page.read_text().splitlines()
    found, begin = [], None
    for i, line in enumerate(lines):
        fence = re.fullmatch(r"```(.*)", line)
        if not fence:
            continue
        if begin is None:
            begin, language = i, fence[1].strip()
            before = next((text for text in reversed(lines[:i]) if text.strip()), "")
            reason = re.fullmatch(r"<!-- not run: (.+) -->", before)
        else:
            text = "\n".join(lines[begin + 1 : i]) + "\n"
            found.append(Block(begin + 1, language, text, reason[1] if reason else ""))
            begin = None
    assert begin is None, f"{page.name}: the block of line {begin + 1} has no end"
    return found


def runnable(page, language):
    return [b for b in blocks(page) if b.language == language and not b.reason]


def slugs(page):
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ +(.+)$", text, re.M)
    return {re.sub(r" ", "-", re.sub(r"[^\w\- ]", "", title.lower())) for title in titles}


def links(page):
    """(target page, anchor) of links to other files."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            name, _, anchor = target.partition("#")
            yield (page.parent / name).resolve() if name else page, anchor


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A folder with `smelt` and `python` that are those under test."""
    folder = tmp_path_factory.mktemp("bin")
    for name, options in (("python", ""), ("smelt", " -m smelt")):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{options} "$@"\n')
        path.chmod(0o755)
    return str(folder)


def test_pages_have_blocks_and_known_languages():
    languages = [b.language for page in PAGES for b in blocks(page)]
    assert set(languages) <= NOT_RUN | {"python", "bash"}
    assert languages.count("python") > 15 and languages.count("bash") > 6
    for page in PAGES:
        marks = page.read_text().count("<!-- not run:")
        assert marks == sum(1 for b in blocks(page) if b.reason), f"{page.name}: a mark stands before no block"


def test_readme_begins_with_the_two_commands():
    first = blocks(ROOT / "README.md")[0]
    assert re.findall(r"^(make \w+)", first.text, re.M) == ["make demo", "make test"]
    loop = runnable(ROOT / "README.md", "python")[0]
    assert len([line for line in loop.text.splitlines() if line.strip()]) <= 12, "a loop of 12 lines"


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p, "python")], ids=lambda p: p.stem)
def test_python_blocks_run(page, tmp_path):
    content = json.dumps([str(page), [(b.line, b.text) for b in runnable(page, "python")]])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXECUTE],
        cwd=tmp_path, env=environment(), input=content, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def make_targets():
    return set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M))


def is_checked_only(line):
    """True for a line that installs or tests the whole project; what it names must exist."""
    words = shlex.split(line, comments=True) if line.startswith(("make ", "pip ")) else []
    if words[:1] == ["make"]:
        assert set(words[1:]) <= make_targets(), f"{line}: no such target"
        return True
    if words[:2] == ["pip", "install"]:
        extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))
        for word in words[2:]:
            name = re.fullmatch(r"\.(?:\[([\w,]+)\])?", word)
            assert name, f"{line}: not this project"
            assert set(filter(None, (name[1] or "").split(","))) <= extras, f"{line}: no such extra"
        return True
    return False


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p, "bash")], ids=lambda p: p.stem)
def test_bash_blocks_run(page, programs, tmp_path):
    for block in runnable(page, "bash"):
        lines = ["" if is_checked_only(line) else line for line in block.text.splitlines()]
        path = os.pathsep.join([programs, os.environ.get("PATH", "")])
        done = run(["bash", "-euo", "pipefail", "-c", "\n".join(lines)], tmp_path, PATH=path)
        assert done.returncode == 0, f"{page.name}, line {block.line}:\n{done.stdout}{done.stderr}"


def test_commands_in_the_text_exist():
    """`make x` in a sentence, and files of the repository that are named."""
    missing = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        missing += [f"{page.name}: make {t}" for t in re.findall(r"`make (\w+)`", text) if t not in make_targets()]
        named = re.findall(r"`((?:csrc|python|tests|docs|tools|bench|examples|cmake)/[\w./-]*)`", text)
        missing += [f"{page.name}: {n}" for n in named if "hardtanh" not in n and not (ROOT / n).exists()]
    assert missing == []


def test_links_lead_somewhere():
    count = 0
    for page in PAGES:
        for target, anchor in links(page):
            assert target.exists(), f"{page.name}: {target} does not exist"
            assert not anchor or anchor in slugs(target), f"{page.name}: {target.name} has no heading #{anchor}"
            count += 1
    assert count > 15


def test_every_page_is_reachable_from_the_readme():
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in seen:
            seen.add(page)
            ahead += [target for target, _ in links(page) if target.suffix == ".md"]
    assert sorted(p.name for p in set(PAGES) - seen) == []


# ------------------------------------------------------------------------------------------------------------ examples


def write_mnist(folder, train=600, test=200):
    """Files as MNIST's, with pictures that are easy to tell apart: a bright bar whose place is the digit."""
    (folder / "mnist").mkdir()
    rng = np.random.default_rng(0)
    for part, rows in (("train", train), ("t10k", test)):
        labels = (np.arange(rows) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (rows, 28, 28)).astype(np.uint8)
        for i, label in enumerate(labels):
            images[i, :, 2 * label + 3 : 2 * label + 6] += 180
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / "mnist" / f"{name}.gz").write_bytes(gzip.compress(head + array.tobytes()))


def run_example(name, folder, *options):
    done = run([sys.executable, "-W", "error", str(ROOT / "examples" / name), *map(str, options)], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return float(re.search(r"^test accuracy (\d+\.\d+) %, F1 \d\.\d+$", done.stdout, re.M)[1])


def test_examples_are_short_and_all_of_them_run_here():
    assert {p.name for p in (ROOT / "examples").glob("*.py")} == {"digits_loop.py", "mnist_trainer.py"}
    assert all(len(p.read_text().splitlines()) <= 200 for p in (ROOT / "examples").glob("*.py"))


def test_example_digits_loop(tmp_path):
    assert run_example("digits_loop.py", tmp_path) > 97


def test_example_mnist_trainer(tmp_path):
    write_mnist(tmp_path)
    assert run_example("mnist_trainer.py", tmp_path, "--data", tmp_path, "--epochs", 4, "--out", "run") > 90
    assert (tmp_path / "mnist.safetensors").exists() and (tmp_path / "run" / "model.safetensors").exists()


def test_example_mnist_trainer_on_real_digits(data_folder, tmp_path):
    if not (data_folder / "mnist").is_dir():
        pytest.skip("SMELT_DATA has no mnist/")
    options = ("--data", data_folder, "--rows", 3000, "--epochs", 1)
    assert run_example("mnist_trainer.py", tmp_path, *options) > 80
