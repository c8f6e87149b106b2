"""A teleoperator that plays recorded actions: an .npz of --record_actions, or an episode of a LeRobotDataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.json_file import FETCH, is_pointer, read_json
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
    info = dataset_info(path, "actions")
    if not 0 <= episode < info["total_episodes"]:
        raise SpecError(f"dataset_episode: found {episode}; {path} has 0 to {info['total_episodes'] - 1}")
    actions = _actions(path, episode)
    stated = info["features"]["action"]
    names, units = stated.get("names"), (stated.get("info") or {}).get("unit", "")
    if isinstance(names, dict):  # LeRobot's older datasets have {"motors": [...]}
        names = next(iter(names.values()), None)
    unit = tuple(units) if isinstance(units, list) else units
    try:
        action = Feature(actions.shape[1:], str(actions.dtype), unit, tuple(names or ()))
    except (TypeError, SpecError) as error:
        raise SpecError(f"actions: {path}: info.json does not describe these actions: {error}") from error
    return Recording(actions, action, float(info["fps"]))


def _actions(path: Path, episode: int) -> np.ndarray:
    """[T, A], of a dataset's episode. Read from its files and nothing else: LeRobot's class asks the hub for what is
    not there, and wants the videos too."""
    try:
        import pyarrow
        from pyarrow import dataset
    except ImportError as error:
        raise SpecError(
            f"actions: a dataset needs LeRobot ({error}); install it: pip install 'tactus[policy]'"
        ) from error
    files = sorted(file for file in (path / "data").rglob("*.parquet") if file.is_file())
    try:
        if pointers := [file.relative_to(path) for file in files if is_pointer(file)]:
            raise ValueError(f"{pointers[0]} is {FETCH}")
        if not files:
            raise ValueError("there is no data/chunk-000/file-000.parquet in it")
        of_episode = dataset.field("episode_index") == episode
        table = dataset.dataset([str(file) for file in files]).to_table(["action", "frame_index"], filter=of_episode)
        table = table.sort_by("frame_index")
        if table["frame_index"].to_pylist() != [*range(max(1, len(table)))]:
            raise ValueError(f"its files under data/ lack frames of episode {episode}")
        return np.stack(table["action"].to_numpy()).reshape(len(table), -1)  # a vector of one is stored as a number
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())
        raise SpecError(f"actions: {path} cannot be read: {why:.300}") from error


def dataset_info(path: Path, key: str) -> dict[str, Any]:
    """A dataset's meta/info.json. key: that gave the path. Raises SpecError: it is not there, not JSON, not a
    dataset's, of another version."""
    file = path / "meta" / "info.json"
    try:
        info = read_json(file, dict)
    except ValueError as error:
        raise SpecError(f"{key}: {path} is no LeRobotDataset: {file.name}: {error}") from error
    needed = {"total_episodes": int, "fps": int | float, "features": dict}
    wrong = [key for key, kind in needed.items() if not isinstance(info.get(key), kind)]
    if wrong or not isinstance(info["features"].get("action"), dict):
        raise SpecError(
            f"{key}: {path} is no LeRobotDataset: {file.name} lacks {', '.join(wrong) or 'the feature action'}"
        )
    version = str(info.get("codebase_version", "v3.0"))
    if not version.startswith("v3"):
        raise SpecError(
            f"{key}: {path} is a LeRobotDataset {version}; accepted: v3.0, which LeRobot's "
            "lerobot/scripts/convert_dataset_v21_to_v30.py makes of it"
        )
    return info
