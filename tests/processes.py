"""Helpers to run Python and the command line in processes of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import smelt

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(smelt.__file__).resolve().parent
SMELT = [sys.executable, "-m", "smelt"]
TIMEOUT = 300  # seconds; only a hang takes so long


def environment(**variables):
    """The environment of this process, in which `import smelt` finds the package under test from any folder.

    A PYTHONPATH among the variables comes before that.
    """
    found = [variables.pop("PYTHONPATH", ""), str(PACKAGE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    paths = dict.fromkeys(str(Path(p).resolve()) for p in found if p)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


def run(command, cwd=None, **variables):
    """Runs a command to its end; output as text."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def start(command, cwd=None, variables=None, **options):
    """Starts a command in which Ctrl-C works, even where this process was started with SIGINT ignored."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(**(variables or {})),
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def python(code, cwd=None, **variables):
    """Runs Python code; gives its standard output."""
    done = run([sys.executable, "-c", code], cwd, **variables)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def smelt_command(*arguments, cwd=None, **variables):
    """Runs `smelt` with arguments."""
    return run([*SMELT, *map(str, arguments)], cwd, **variables)
