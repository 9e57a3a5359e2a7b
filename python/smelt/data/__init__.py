"""Datasets in memory, splits, batches and preprocessing."""

from .dataset import ArrayDataset, split
from .loader import Loader
from .preprocess import ImagePreprocess

__all__ = ["ArrayDataset", "ImagePreprocess", "Loader", "split"]
