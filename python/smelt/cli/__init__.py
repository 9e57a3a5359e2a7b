"""The command ``smelt``."""

from .main import main

__all__ = ["main"]
