"""Makes the batch that a LeRobot policy reads from what robots observe, as lerobot-eval makes it for one of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tactus.hal.spec import Feature, image
from tactus.policies.lerobot.chunk_prediction import Batch

EMPTY_CAMERA = "empty_camera"
"""Part of the names of cameras that are never there: SmolVLA and PI0 list them to fill their slots."""

Arrays = Mapping[str, np.ndarray]


class Inputs:
    """features: what a robot has to give, under its own names. offsets: the ticks it has to give it of.
    own_names: the robot's name -> the checkpoint's.

    rename: the robot's names -> the checkpoint's. absent: the checkpoint's names
    of cameras that are not there.
    """

    def __init__(
        self,
        config: Any,
        rename: Mapping[str, str],
        preprocessor: Any,
        device: torch.device,
        absent: Collection[str] = (),
    ) -> None:
        robots = {ours: robot for robot, ours in rename.items()}
        wanted: dict[str, Any] = {
            name: feature
            for name, feature in config.input_features.items()
            if EMPTY_CAMERA not in name and name not in absent
        }
        self.own_names = {robots.get(name, name): name for name in wanted}
        self.features = {robots.get(name, name): _feature(feature) for name, feature in wanted.items()}
        self.offsets = tuple(range(1 - getattr(config, "n_obs_steps", 1), 1))
        self._preprocessor = preprocessor
        self._device = device

    def batch(self, rows: Sequence[Arrays], tasks: Sequence[str]) -> Batch:
        """Preprocessed [B, …], or [B, T, …] with a history, whose ticks are rows like any other meanwhile."""
        history = len(self.offsets)
        batch: Batch = {"task": [task for task in tasks for _ in range(history)]}
        for name, feature in self.features.items():
            arrays = np.stack([row[name] for row in rows])
            arrays = arrays.reshape(len(rows) * history, *arrays.shape[arrays.ndim - len(feature.shape) :])
            tensor = self._picture(arrays) if feature.is_image else torch.from_numpy(arrays).float()
            batch[self.own_names[name]] = tensor
        batch = self._preprocessor(batch)
        if history == 1:
            return batch
        return {key: value.unflatten(0, (-1, history)) for key, value in batch.items() if isinstance(value, Tensor)}

    def zeros(self) -> Arrays:
        """One robot's observation of nothing."""
        lead = (len(self.offsets),) if len(self.offsets) > 1 else ()
        return {name: np.zeros((*lead, *f.shape), f.dtype) for name, f in self.features.items()}

    def _picture(self, arrays: np.ndarray) -> Tensor:
        """uint8[B, H, W, 3] -> float32[B, 3, H, W] in 0-1, by the arithmetic of LeRobot's preprocess_observation."""
        pictures = torch.from_numpy(arrays)
        if self._device.type == "cuda":  # bytes travel, not floats; and division by a tensor is exact there as well
            pictures = pictures.pin_memory().to(self._device, non_blocking=True)
            return pictures.permute(0, 3, 1, 2).contiguous().float() / torch.tensor(255.0, device=self._device)
        return pictures.permute(0, 3, 1, 2).contiguous().float().div_(255)


def _feature(feature: Any) -> Feature:
    """LeRobot states images as (3, height, width) and neither names nor units."""
    if feature.type.value == "VISUAL":
        return image(*feature.shape[1:])
    return Feature(tuple(feature.shape), "float32", unit="")
