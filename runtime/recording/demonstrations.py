"""Episodes of a LeRobotDataset as a policy is to see them, and the actions that were taken in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.json_file import FETCH, is_pointer
from tactus.hal.spec import DTYPES, Feature, Observation, PolicySpec, RobotSpec, SpecError, image
from tactus.runtime.recording.dataset_cache import keep_no_copies
from tactus.runtime.recording.dataset_files import read_frames, read_info, vector_feature
from tactus.runtime.wire.handshake import mismatches

KEY = "dataset_root"
PICTURES = ("video", "image")


class Frame(NamedTuple):
    """One frame of the chosen episodes. episode: its place among them, from 0. frame: of the episode, from 0."""

    episode: int
    frame: int


class Episode(NamedTuple):
    """number: of the dataset. actions: [T, A], as stored. tasks: [T], numbers of the dataset's tasks. rows: [T], each
    frame's number in the dataset, from 0.
    """

    number: int
    actions: np.ndarray
    tasks: np.ndarray
    rows: np.ndarray


class Demonstrations:
    """Reads observations with LeRobot's own class, actions from the dataset's files.

    episodes: numbers of those to use, None for all. allow: of tactus.runtime.wire.handshake.ALLOWANCES.
    Raises SpecError: no dataset there, no such episode, a policy that reads or does something else.
    """

    def __init__(
        self, root: Path, policy: PolicySpec, episodes: Sequence[int] | None = None, allow: Collection[str] = ()
    ) -> None:
        self.root = root
        info = read_info(KEY, root)
        self.total_episodes = int(info["total_episodes"])
        self.fps = float(info["fps"])
        self.robot = str(info.get("robot_type") or "")
        numbers = self._numbers(episodes)
        self._inputs = policy.inputs
        self._history = len(policy.observation_offsets)
        self.action = self._action(info, policy)
        self._check(info, policy, allow)
        self.episodes = [
            Episode(number, found["action"].reshape(len(found["action"]), -1), found["task_index"], found["index"])
            for number, found in zip(numbers, self._read(numbers), strict=True)
        ]
        if bad := [one.number for one in self.episodes if not np.isfinite(one.actions).all()]:
            raise SpecError(f"{KEY}: {root} has actions that are not finite numbers in episode {bad[0]}")
        self._check_files(numbers)
        self._open(numbers, policy)

    @property
    def total_frames(self) -> int:
        """Of the chosen episodes."""
        return sum(len(one.actions) for one in self.episodes)

    @property
    def names(self) -> list[str]:
        """Of the action's dimensions; their numbers if the dataset does not name them."""
        return list(self.action.names) or [f"action {i}" for i in range(int(np.prod(self.action.shape)))]

    @property
    def units(self) -> list[str]:
        """Of the action's dimensions, empty where they have none or the dataset does not state them."""
        return ["" if unit == "1" else unit for unit in self.action.units] or [""] * len(self.names)

    def frames(self, stride: int) -> list[Frame]:
        """Every so many frames of each episode, from its first one on."""
        return [Frame(e, t) for e, one in enumerate(self.episodes) for t in range(0, len(one.actions), stride)]

    def row(self, frame: Frame) -> int:
        """A frame's number in the dataset."""
        return int(self.episodes[frame.episode].rows[frame.frame])

    def task(self, number: int) -> str:
        """A task's text."""
        return str(self._tasks[number])

    def observation(self, frame: Frame) -> Observation:
        """What the policy is given at a frame; with a history, the ticks before it too, as a robot node gives them."""
        with Fence(f"dataset {self.root}", f"reading frame {self.row(frame)}", SpecError):
            item = self._data[self._places[self.row(frame)]]
            arrays = {name: self._array(item[name], feature) for name, feature in self._inputs.items()}
        return Observation(arrays, tick=frame.frame, task=str(item["task"]))

    def _array(self, tensor: Any, feature: Feature) -> np.ndarray:
        """LeRobot's pictures are [3, H, W], bytes or 0-1; a vector of one is a number."""
        array = tensor.numpy()
        lead = (self._history,) if self._history > 1 else ()
        if not feature.is_image:
            return array.reshape(*lead, *feature.shape).astype(feature.dtype)
        array = np.moveaxis(array.reshape(*lead, *array.shape[-3:]), -3, -1)
        return np.ascontiguousarray(array if array.dtype == np.uint8 else np.rint(255 * array).astype(np.uint8))

    def _numbers(self, episodes: Sequence[int] | None) -> list[int]:
        if not self.total_episodes:
            raise SpecError(f"{KEY}: {self.root} has no episode")
        numbers = [*range(self.total_episodes)] if episodes is None else sorted({*episodes})
        if wrong := [number for number in numbers if not 0 <= number < self.total_episodes]:
            raise SpecError(
                f"episodes: found {', '.join(map(str, wrong[:8]))}; {self.root} has 0 to {self.total_episodes - 1}"
            )
        return numbers

    def _action(self, info: dict[str, Any], policy: PolicySpec) -> Feature:
        return vector_feature(KEY, self.root, _named_whole(info, "action"), "action", policy.action.dtype)

    def _check(self, info: dict[str, Any], policy: PolicySpec, allow: Collection[str]) -> None:
        """Raise SpecError with every difference, as a policy node tells it to a robot."""
        seen: dict[str, Feature] = {}
        for name, stated in info["features"].items():
            if not name.startswith("observation."):
                continue
            if stated.get("dtype") in PICTURES:
                seen[name] = _picture(stated)
            elif stated.get("dtype") in DTYPES:
                wanted = policy.inputs.get(name)
                dtype = wanted.dtype if wanted is not None else str(stated["dtype"])  # read as the policy takes it
                seen[name] = vector_feature(KEY, self.root, _named_whole(info, name), name, dtype)
        robot = RobotSpec(self.robot or (*policy.robots, self.root.name)[0], self.fps, seen, self.action)
        if reasons := mismatches(robot, policy, allow, "dataset"):
            told = "\n".join(f"  - {reason}" for reason in reasons)
            raise SpecError(f"{policy.name} does not fit the dataset {self.root}:\n{told}")

    def _read(self, numbers: Sequence[int]) -> list[dict[str, np.ndarray]]:
        return read_frames(KEY, self.root, numbers, ["action", "task_index", "index"])

    def _check_files(self, numbers: Sequence[int]) -> None:
        """Raise SpecError for what is not there: LeRobot would ask the hub for it."""
        for part in ("meta/tasks.parquet", "meta/episodes"):
            if not (self.root / part).exists():
                raise SpecError(f"{KEY}: {self.root} is not whole: {part} is missing")
        with Fence(f"dataset {self.root}", "reading its meta/ folder", SpecError):
            from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

            keep_no_copies()
            meta = LeRobotDatasetMetadata(self._name, root=self.root)
            files = {meta.get_video_file_path(number, key) for number in numbers for key in meta.video_keys}
            tasks: Any = meta.tasks
            self._tasks = [str(tasks.iloc[i].name) for i in range(len(tasks))]
        for file in sorted(files):
            if not (self.root / file).is_file():
                raise SpecError(f"{KEY}: {self.root} is not whole: {file} is missing")
            if is_pointer(self.root / file):
                raise SpecError(f"{KEY}: {self.root}: {file} is {FETCH}")

    @property
    def _name(self) -> str:
        """A repository's, which LeRobot asks for and, with all files here, does not use."""
        return "tactus/dataset"

    def _open(self, numbers: list[int], policy: PolicySpec) -> None:
        with Fence(f"dataset {self.root}", "opening it", SpecError):
            import datasets
            from lerobot.datasets.lerobot_dataset import LeRobotDataset

            datasets.disable_progress_bars()
            past = [offset / self.fps for offset in policy.observation_offsets]
            self._data: Any = LeRobotDataset(
                self._name,
                root=self.root,
                episodes=numbers,
                delta_timestamps=dict.fromkeys(policy.inputs, past) if self._history > 1 else None,
                return_uint8=True,
            )
            rows = self._data.reader.hf_dataset.data.column("index").to_numpy()
            self._places = {int(row): place for place, row in enumerate(rows)}
            unread = [key for key in self._data.meta.camera_keys if key not in policy.inputs]
            stored = [key for key in unread if key in self._data.reader.hf_dataset.column_names]
            self._data.reader.hf_dataset = self._data.reader.hf_dataset.remove_columns(stored)
            for key in unread:  # or they would be decoded too
                del self._data.meta.info.features[key]


def _named_whole(info: dict[str, Any], name: str) -> dict[str, Any]:
    """Without names that are not one an element: LIBERO's dataset calls all seven of its actions `actions`."""
    stated = info["features"][name]
    names, shape = stated.get("names"), stated.get("shape")
    listed = next(iter(names.values()), None) if isinstance(names, dict) and names else names
    if isinstance(listed, list) and isinstance(shape, list) and len(listed) == np.prod(shape):
        return info
    return {**info, "features": {name: {**stated, "names": None}}}


def _picture(stated: dict[str, Any]) -> Feature:
    """info.json has height, width, channels, or the channels first."""
    shape, names = [int(size) for size in stated["shape"]], stated.get("names")
    first = isinstance(names, list) and str(names[0]).startswith("channel")
    first = first or (names is None and shape[0] == 3 != shape[-1])
    channels, height, width = shape if first else (shape[2], *shape[:2])
    return image(height, width) if channels == 3 else Feature((height, width, channels), "uint8")
