"""What a LeRobotDataset holds that a robot and a policy can be compared with: rate, names, vectors, some pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.spec import SpecError
from tactus.runtime.recording.dataset_cache import keep_no_copies
from tactus.runtime.recording.dataset_files import read_info

PICTURES = 24
"""Frames that are looked at, evenly over the dataset."""


@dataclass(frozen=True)
class DatasetFacts:
    """vectors: [frames, width] by name. pictures: some of each camera, uint8[H, W, 3]. units: of a vector, if stated.
    error: why there is no more than this."""

    root: str
    fps: float | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    pictures: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)
    error: str = ""


def dataset_facts(root: Path) -> DatasetFacts:
    """Read by LeRobot's own class, from what lies there: nothing is asked of the hub."""
    try:
        info = read_info("dataset_root", root)
    except SpecError as error:
        return DatasetFacts(str(root), error=str(error))
    features = {name: each for name, each in info["features"].items() if name.startswith(("observation.", "action"))}
    shapes = {name: tuple(int(size) for size in each.get("shape", ())) for name, each in features.items()}
    units = {
        name: unit
        for name, each in features.items()
        if isinstance(unit := (each.get("info") or {}).get("unit"), str) and unit not in ("", "1")
    }
    facts = DatasetFacts(str(root), float(info["fps"]), shapes, units)
    try:
        with Fence("dataset_root", "reading it", SpecError):
            vectors, pictures = _contents(root, [name for name in shapes if len(shapes[name]) <= 1], features)
    except SpecError as error:
        return DatasetFacts(str(root), facts.fps, shapes, units, error=str(error))
    return DatasetFacts(str(root), facts.fps, shapes, units, vectors, pictures)


def _contents(root: Path, names: list[str], features: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    with mock.patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}):
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        keep_no_copies()
        dataset: Any = LeRobotDataset(f"local/{root.name}", root=root)
        table = dataset.hf_dataset.with_format("numpy")
        vectors = {name: np.asarray(table[name][:]).reshape(len(table), -1) for name in names}
        pictures: dict[str, list[np.ndarray]] = {
            name: [] for name, each in features.items() if each.get("dtype") in ("image", "video")
        }
        if pictures:
            for index in np.unique(np.linspace(0, len(dataset) - 1, PICTURES).astype(int)):
                frame = dataset[int(index)]
                for name, found in pictures.items():
                    picture = frame[name].permute(1, 2, 0).numpy()
                    found.append(np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8))
    return vectors, {name: tuple(found) for name, found in pictures.items()}
