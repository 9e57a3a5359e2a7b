"""From raw values to a model's input, kept with the model so that training, evaluation and prediction agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from .._core import Tensor
from ..functions._types import Array, is_finite_number

__all__ = ["ImagePreprocess"]


def refuse_not_finite(name: str, values: Array) -> None:
    """Says how many values are NaN or infinite, and where the first is."""
    finite = np.isfinite(values)
    if not finite.all():
        first = tuple(int(i) for i in np.unravel_index(np.argmin(finite), finite.shape))
        raise ValueError(
            f"{name} must be finite, {finite.size - np.count_nonzero(finite)} of {finite.size} values are not; "
            f"the first is {values[first]} at {first}"
        )


class ImagePreprocess:
    """Images as (values * scale - mean) / std, channel by channel, in float32.

    Args:
        shape: (H, W, C) of one image.
        scale: factor of the raw values, such as 1 / 255.
        mean: of each channel, after scaling.
        std: of each channel, after scaling, above 0.

    Raises:
        ValueError: mean and std do not have one number for each channel.

    Example:
        >>> p = data.ImagePreprocess((2, 2, 1), scale=1 / 255, mean=[0.5], std=[0.5])
        >>> p(np.full((1, 2, 2, 1), 255, np.uint8)).flatten()
        tensor([1., 1., 1., 1.])
    """

    def __init__(self, shape: Any, scale: float, mean: Any, std: Any):
        self.shape = tuple(int(n) for n in shape)
        self.scale = float(scale)
        self.mean, self.std = [float(v) for v in mean], [float(v) for v in std]
        if len(self.shape) != 3:
            raise ValueError(f"ImagePreprocess: shape must be (H, W, C), got {self.shape}")
        self._there: dict[str, list[Tensor]] = {}  # factor and shift on other devices
        lengths_agree = len(self.mean) == len(self.std) == self.shape[2]
        if not lengths_agree or not np.isfinite([*self.mean, *self.std]).all() or min(self.std, default=1) <= 0:
            raise ValueError(
                f"ImagePreprocess: finite mean and positive std must have {self.shape[2]} numbers, "
                f"got {self.mean} and {self.std}"
            )

    @classmethod
    def fit(cls, images: Array, maximum: float = 255.0) -> ImagePreprocess:
        """Mean and standard deviation of training images.

        Args:
            images: (N, H, W, C) or (N, H, W).
            maximum: the raw value that becomes 1 before they are taken.

        Returns:
            The preprocessing that gives each channel mean 0 and standard deviation 1.

        Raises:
            ValueError: there is no image, the shape is another one, or values are not finite.

        Example:
            >>> data.ImagePreprocess.fit(np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), maximum=7).shape
            (2, 2, 1)
        """
        if len(images) == 0:
            raise ValueError("ImagePreprocess: needs at least one image, got none")
        if images.ndim not in (3, 4):
            raise ValueError(f"ImagePreprocess: images must be (N, H, W, C) or (N, H, W), got shape {images.shape}")
        x = images if images.ndim == 4 else images[..., None]
        refuse_not_finite("ImagePreprocess: images", x)
        if not np.isfinite(maximum) or maximum <= 0:
            raise ValueError(f"ImagePreprocess: maximum must be finite and above 0, got {maximum}")
        scaled = x.reshape(-1, x.shape[-1]).astype(np.float64) / maximum
        varies = scaled.max(0) > scaled.min(0)  # the deviation of a constant is 0 but for rounding
        return cls(x.shape[1:], 1.0 / maximum, scaled.mean(0), np.where(varies, scaled.std(0), 1.0))

    def __call__(self, images: Any) -> Tensor:
        there = isinstance(images, Tensor) and images.device != "cpu"
        x = images if there else images.detach().numpy() if isinstance(images, Tensor) else np.asarray(images)
        if x.ndim == 3 and x.shape[1:] == self.shape[:2] and self.shape[2] == 1:
            x = x.reshape(*x.shape, 1)
        if x.ndim == 2 and x.shape[1] == int(np.prod(self.shape)):
            x = x.reshape(-1, *self.shape)
        if x.ndim != 4 or x.shape[1:] != self.shape:
            raise ValueError(f"preprocess: images must be (N, {', '.join(map(str, self.shape))}), got shape {x.shape}")
        factor = np.array([self.scale / s for s in self.std], np.float32)
        shift = np.array([m / s for m, s in zip(self.mean, self.std)], np.float32)
        if not there:
            return _core.from_numpy(x.astype(np.float32) * factor - shift, None)
        if x.device not in self._there:
            self._there[x.device] = [_core.to_device(_core.from_numpy(v, None), x.device) for v in (factor, shift)]
        on_device: Any = x
        result: Tensor = on_device.detach().float() * self._there[x.device][0] - self._there[x.device][1]
        return result

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON values.

        Example:
            >>> data.ImagePreprocess((1, 1, 1), 1.0, [0.0], [1.0]).to_json()["kind"]
            'image'
        """
        return {"kind": "image", "shape": list(self.shape), "scale": self.scale, "mean": self.mean, "std": self.std}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ImagePreprocess:
        """The preprocessing from :meth:`to_json`.

        Args:
            value: the JSON values.

        Raises:
            ValueError: they are of another kind, or damaged.

        Example:
            >>> p = data.ImagePreprocess((1, 1, 1), 1.0, [0.0], [1.0])
            >>> data.ImagePreprocess.from_json(p.to_json()).shape
            (1, 1, 1)
        """
        if not isinstance(value, dict) or value.get("kind") != "image":
            kind = value.get("kind") if isinstance(value, dict) else value
            raise ValueError(f"preprocess: kind must be 'image', got {kind!r}")
        parts: list[Any] = [value.get(key) for key in ("shape", "scale", "mean", "std")]
        shape, scale, mean, std = parts
        numbers = [*shape, scale, *mean, *std] if all(isinstance(v, list) for v in (shape, mean, std)) else [None]
        if not all(is_finite_number(v) for v in numbers) or not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError(
                f"preprocess: needs a shape, a scale, mean and std of finite numbers, got {shape}, {scale}, {mean}, {std}"
            )
        return cls(shape, scale, mean, std)

    def __repr__(self) -> str:
        return f"ImagePreprocess(shape={self.shape}, scale={self.scale:g}, mean={self.mean}, std={self.std})"
