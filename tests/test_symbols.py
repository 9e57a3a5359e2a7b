"""Objects of one instruction set share no code with others, and the module exports nothing by accident."""

import re
import shutil
import subprocess

import pytest

from smelt import _core
from tests.processes import ROOT

NM = shutil.which("nm")
pytestmark = pytest.mark.skipif(NM is None, reason="nm of binutils is not installed")


def symbols(path, *options):
    """(type, demangled name) of what a file defines."""
    text = subprocess.run(
        [NM, "-C", "--defined-only", *options, path], capture_output=True, text=True, check=True
    ).stdout
    return [(m[1], m[2]) for m in re.finditer(r"^[0-9a-f]+ (\w) (.*)$", text, re.M)]


def isa_objects():
    """Objects compiled for one instruction set, of every Release build below build/; sanitizers add symbols of theirs."""
    found = []
    for cache in sorted(ROOT.glob("build/**/CMakeCache.txt")):
        text = cache.read_text()
        if "CMAKE_BUILD_TYPE:STRING=Release" in text and re.search(r"^SMELT_SANITIZE:\w+=$", text, re.M):
            found += sorted(cache.parent.glob("CMakeFiles/smelt_cpu_*.dir/**/*.o"))
    return found


def leaks(path, isa):
    """Symbols that the linker could merge with those of another object, or hand to code for other CPUs."""
    own = re.compile(rf"smelt::cpu::{isa}::register_\w+\(smelt::KernelTable&\)")
    # Lower case is local to the object, except u, v and w, which are weak or unique.
    return [
        (kind, name) for kind, name in symbols(path) if (kind.isupper() or kind in "uvw") and not own.fullmatch(name)
    ]


def test_objects_of_an_instruction_set_define_only_their_register_functions():
    objects = isa_objects()
    if not objects:
        pytest.skip(
            "there are no objects of a Release build below build/, as after `pip install .` or a cmake build here"
        )
    for path in objects:
        isa = re.search(r"smelt_cpu_(\w+)\.dir", str(path))[1]
        assert leaks(path, isa) == [], f"{path.name} of {isa}: put it into an anonymous namespace"
    assert any(symbols(path) for path in objects), "nm has shown nothing"


def test_the_search_finds_a_leak(tmp_path):
    """An inline function and a template that an object emits are found; what is in an anonymous namespace is not."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed")
    source = tmp_path / "leak.cpp"
    source.write_text(
        "namespace smelt { struct KernelTable; int use(int (*)(int));\n"
        "inline int shared(int x) { return x + 1; }\n"
        "template <class T> struct Box { static int get(int x) { return x + sizeof(T); } };\n"
        "namespace { int own(int x) { return x + 2; } }\n"
        "namespace cpu::avx2 { void register_leak(KernelTable&) { use(shared); use(Box<int>::get); use(own); } } }\n"
    )
    subprocess.run([compiler, "-std=c++20", "-O1", "-c", source, "-o", tmp_path / "leak.o"], check=True)
    names = {name for _, name in leaks(tmp_path / "leak.o", "avx2")}
    assert names == {"smelt::shared(int)", "smelt::Box<int>::get(int)"}
    assert len(leaks(tmp_path / "leak.o", "avx512")) == 3, "a register function of another set is one too"


def test_the_module_exports_its_entry_alone():
    """What other libraries in the process see: strong symbols or smelt's own functions could be taken for theirs."""
    exported = symbols(_core.__file__, "-D")
    linkers_own = {"_init", "_fini", "_edata", "_end", "__bss_start"}
    assert {name for kind, name in exported if kind in "TDBR"} - linkers_own == {"PyInit__core"}
    assert [name for kind, name in exported if kind == "W" and re.match(r"(\w+ )?smelt::", name)] == []


def test_the_module_needs_only_the_system():
    """No OpenMP, no BLAS, no Python library: they would bring threads and versions of their own."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf of binutils is not installed")
    text = subprocess.run(["readelf", "-d", _core.__file__], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(.*?)\]", text))
    system = r"lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|asan|ubsan|tsan)\.so\.\d+|ld-linux.*"
    assert [name for name in needed if not re.fullmatch(system, name)] == []
