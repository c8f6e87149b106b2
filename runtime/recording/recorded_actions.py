"""A teleoperator that plays recorded actions: an .npz of --record_actions, or an episode of a LeRobotDataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tactus.hal.spec import Feature, RobotSpec, SpecError
from tactus.hal.teleop import Teleoperator
from tactus.policies.scripted.replay import read_actions
from tactus.runtime.recording.dataset_files import read_frames, read_info, vector_feature


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
    info = read_info("actions", path)
    if not 0 <= episode < info["total_episodes"]:
        raise SpecError(f"dataset_episode: found {episode}; {path} has 0 to {info['total_episodes'] - 1}")
    [frames] = read_frames("actions", path, [episode], ["action"])
    actions = frames["action"].reshape(len(frames["action"]), -1)  # a vector of one is stored as a number
    action = vector_feature("actions", path, info, "action", str(actions.dtype), actions.shape[1:])
    return Recording(actions, action, float(info["fps"]))
