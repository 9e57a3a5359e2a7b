"""smelt info"""

from __future__ import annotations

import argparse
from typing import Any

from .. import runtime


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """What this machine and build can do: ``smelt info``.

    Args:
        args: the parsed command line.

    Returns:
        What ``--json`` prints, and the exit code.
    """
    info = runtime.info()
    if not args.json:
        print(f"smelt    {info['smelt']} (Python {info['python']}, NumPy {info['numpy']}, {info['system']})")
        print(f"cpu      {info['cpu']}")
        print(f"         {info['cpu_features']}")
        lowered = "" if info["isa"] == info["detected_isa"] else f" (lowered from {info['detected_isa']})"
        print(f"kernels  {info['isa']}{lowered}, {info['threads']} threads")
        if "isa_note" in info:
            print(f"         {info['isa_note']}")
        for name, device in info["devices"].items():
            print(f"device   {name}: {'available' if device['available'] else device['reason']}")
        print(f"data     {info['data']}")
        for name, value in info["variables"].items():
            print(f"variable {name}={value}")
    return info, 0
