"""Files from the network, only when asked for: resumed where broken off, checked, from the first mirror that answers."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["download"]

_CHUNK = 1 << 20


def download(urls: Sequence[str], path: Any, sha256: str, timeout: float = 30.0) -> Path:
    """Fetches a file unless it is there already, and checks it.

    What a broken connection left in ``<path>.part`` is completed by the next call. A mirror that fails, or whose file has
    another sha256, is passed over for the next one.

    Args:
        urls: addresses of the same file, tried in order.
        path: where it goes.
        sha256: the fingerprint it must have, 64 hexadecimal digits.
        timeout: seconds without an answer until a mirror counts as failed.

    Returns:
        The path.

    Raises:
        OSError: no mirror gave the file; the message lists what each of them answered.

    Example:
        >>> import tempfile, pathlib, hashlib
        >>> source = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = source.write_text("hello")
        >>> digest = hashlib.sha256(b"hello").hexdigest()
        >>> datasets.download([source.as_uri()], source.parent / "b.txt", digest).read_text()
        'hello'
    """
    target = Path(path)
    if target.exists() and _digest(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    problems = []
    for url in urls:
        # A part that turns out wrong may be another mirror's: then once more from the start.
        for attempt in (1, 2):
            resumed = part.exists() and part.stat().st_size > 0
            try:
                _fetch(url, part, timeout)
            except (OSError, ValueError) as error:
                problems.append(f"{url}: {error}")
                break
            found = _digest(part)
            if found == sha256:
                os.replace(part, target)
                return target
            part.unlink()
            problems.append(f"{url}: sha256 must be {sha256}, got {found}")
            if not resumed or attempt == 2:
                break
    raise OSError(f"download: no mirror gave {target.name}: " + "; ".join(problems))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _fetch(url: str, part: Path, timeout: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing is missing
            return
        raise
    with answer:
        resumed = have and getattr(answer, "status", None) == 206
        expected = answer.headers.get("Content-Length")
        written = 0
        read = getattr(answer, "read1", answer.read)  # gives what is there, so that nothing that came is lost
        with part.open("ab" if resumed else "wb") as file:
            while block := read(_CHUNK):
                file.write(block)
                written += len(block)
        if expected is not None and written != int(expected):
            raise OSError(f"the connection broke off after {written} of {expected} bytes")
