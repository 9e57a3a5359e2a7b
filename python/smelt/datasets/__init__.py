"""Real datasets, as arrays."""

from .fetch import download
from .idx import read_idx, write_idx
from .locate import data_root
from .mnist import fashion_mnist, kmnist, mnist
from .optical_digits import digits

__all__ = ["data_root", "digits", "download", "fashion_mnist", "kmnist", "mnist", "read_idx", "write_idx"]
