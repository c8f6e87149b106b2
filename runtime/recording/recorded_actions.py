"""A teleoperator that plays recorded actions: an .npz of --record_actions, or an episode of a LeRobotDataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.spec import Feature, RobotSpec, SpecError
from tactus.hal.teleop import Teleoperator
from tactus.policies.scripted.replay import read_actions


class Recording(Teleoperator):
    """Plays action i at tick i, then ends the episode.

    actions: [T, A]. action: what they are; what it does not state (names, unit) is not compared. fps: None if unknown.
    """

    def __init__(self, actions: np.ndarray, action: Feature, fps: float | None) -> None:
        if not len(actions):
            raise SpecError("actions: a recording without actions cannot be replayed")
        self._actions = actions
        self._action = action
        self._fps = fps
        self._tick = 0

    @property
    def first(self) -> dict[str, float]:
        """The first action by its dimensions' names; empty if they have none."""
        return dict(zip(self._action.names, self._actions[0].tolist(), strict=False))

    def connect(self, robot: RobotSpec) -> None:
        ours, theirs = robot.action, self._action
        for key in ("shape", "names", "units"):
            wanted, found = getattr(ours, key), getattr(theirs, key)
            if wanted and found and wanted != found:
                raise SpecError(f"actions: {key}: the recording has {found}, {robot.name} takes {wanted}")
        if self._fps is not None and self._fps != robot.fps:
            raise SpecError(f"actions: recorded at {self._fps:g} Hz, {robot.name} runs at {robot.fps:g}; set robot.fps")
        self._actions = self._actions.astype(ours.dtype)

    def reset(self, state: np.ndarray) -> None:
        self._tick = 0

    def decide(self) -> np.ndarray | None:
        if self._tick == len(self._actions):
            return None
        self._tick += 1
        return self._actions[self._tick - 1]

    def close(self) -> None:
        """There is nothing to release."""


def read_recording(path: Path, episode: int) -> Recording:
    """From an .npz file or a dataset's folder. Raises SpecError: no such thing, or no such episode."""
    if not path.exists():
        raise SpecError(f"actions: {path} does not exist; an .npz of --record_actions, or a LeRobotDataset's folder")
    if not path.is_dir():
        try:
            return Recording(*read_actions(path), fps=None)
        except SpecError as error:
            raise SpecError(str(error).replace("policy.path", "actions", 1)) from error
    info = _info(path)
    if not 0 <= episode < info["total_episodes"]:
        raise SpecError(f"dataset_episode: found {episode}; {path} has 0 to {info['total_episodes'] - 1}")
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ImportError as error:
        raise SpecError(
            f"actions: a dataset needs LeRobot ({error}); install it: pip install 'tactus[policy]'"
        ) from error
    try:
        frames = LeRobotDataset(f"tactus/{path.name}", root=path, episodes=[episode]).hf_dataset.with_format("numpy")
        own = np.asarray(frames["episode_index"]) == episode
        actions = np.stack(list(frames["action"]))[own]
        actions = actions.reshape(len(actions), -1)  # LeRobot gives a vector of one as a number
    except Exception as error:
        why = " ".join(str(error).split())
        raise SpecError(f"actions: {path} cannot be read: {type(error).__name__}: {why:.300}") from error
    stated = info["features"]["action"]
    names, units = stated.get("names") or (), (stated.get("info") or {}).get("unit", "")
    if isinstance(names, dict):  # LeRobot's older datasets have {"motors": [...]}
        names = next(iter(names.values()), ())
    unit = tuple(units) if isinstance(units, list) else units
    return Recording(actions, Feature(actions.shape[1:], str(actions.dtype), unit, tuple(names)), float(info["fps"]))


def _info(path: Path) -> dict[str, Any]:
    """A dataset's meta/info.json. Raises SpecError: it is not there, not JSON, not a dataset's, of another version."""
    file = path / "meta" / "info.json"
    try:
        info = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        pointer = file.is_file() and file.read_bytes().startswith(b"version https://git-lfs")
        why = "a Git LFS pointer: `git lfs pull` fetches what it stands for" if pointer else str(error)
        raise SpecError(f"actions: {path} is no LeRobotDataset: {file.name}: {why}") from error
    needed = {"total_episodes": int, "fps": int | float, "features": dict}
    wrong = [key for key, kind in needed.items() if not isinstance(info, dict) or not isinstance(info.get(key), kind)]
    if wrong or "action" not in info["features"]:
        raise SpecError(
            f"actions: {path} is no LeRobotDataset: {file.name} lacks {', '.join(wrong) or 'the feature action'}"
        )
    version = str(info.get("codebase_version", "v3.0"))
    if not version.startswith("v3"):
        raise SpecError(
            f"actions: {path} is a LeRobotDataset {version}; accepted: v3.0, which LeRobot's "
            "lerobot/scripts/convert_dataset_v21_to_v30.py makes of it"
        )
    return info
