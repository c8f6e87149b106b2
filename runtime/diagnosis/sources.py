"""Where the observations come from that are traced: a robot, a flight record, a LeRobotDataset, an .npz, or a trace.

All of them are given as a robot observes them: arrays by name, pictures uint8[H, W, 3].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tactus.hal.spec import IMAGES, Feature, PolicySpec, SpecError
from tactus.policies.tracing.trace_file import Trace, TraceError
from tactus.runtime.flight import FlightError
from tactus.runtime.flight.channels import SENT
from tactus.runtime.flight.reader import read_flights
from tactus.runtime.recording.dataset_cache import keep_no_copies
from tactus.runtime.wire.codec import OBSERVE, WireError

Wanted = Mapping[str, Feature]


class Seen(NamedTuple):
    """What is given to the policy. arrays: by the robot's names. about: of the sample, task among it."""

    arrays: dict[str, np.ndarray]
    about: dict[str, Any]


def recorded(path: Path, policy: PolicySpec, episode: int, stride: int) -> Iterator[Seen]:
    """Observations from a file or folder, every stride-th. policy: which of a dataset's features, at which offsets.

    Raises SpecError for what is none, or holds none of it.
    """
    if path.is_dir() and (path / "meta" / "info.json").is_file():
        return _dataset(path, policy, episode, stride)
    if path.is_dir() or path.suffix == ".mcap":
        return _flight(path, stride)
    if path.suffix == ".npz":
        return _npz(path, stride)
    if path.is_file():
        return _trace(path, stride)
    raise SpecError(
        f"observations: no {path}; accepted: a flight record (its folder, or .mcap), a LeRobotDataset's folder, an "
        ".npz of arrays by feature name, or another trace"
    )


def _flight(path: Path, stride: int) -> Iterator[Seen]:
    count = 0
    try:
        for flight in read_flights(path):
            for record in flight.records:
                if record.topic != SENT or (message := record.message()) is None or message.kind != OBSERVE:
                    continue
                if count % stride == 0:
                    arrays = {name: np.array(array) for name, array in message.arrays.items()}
                    yield Seen(arrays, {"task": message.meta.get("task", ""), "tick": message.tick})
                count += 1
    except (FlightError, WireError) as error:
        raise SpecError(f"observations: {error}") from error
    if not count:
        raise SpecError(f"observations: {path}: a flight record without an observation that was sent")


def _npz(path: Path, stride: int) -> Iterator[Seen]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise SpecError(f"observations: {path} is no .npz of plain arrays: {error}") from error
    tasks = arrays.pop("task", np.array([""]))
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not arrays or len({*lengths.values()}) != 1:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items()) or "none"
        raise SpecError(f"observations: {path}: every array has one row per observation; found {told}")
    for row in range(0, next(iter(lengths.values())), stride):
        task = str(tasks[min(row, len(tasks) - 1)]) if tasks.ndim else str(tasks)
        yield Seen({name: array[row] for name, array in arrays.items()}, {"task": task, "tick": row})


def _trace(path: Path, stride: int) -> Iterator[Seen]:
    try:
        trace = Trace.load(path)
    except TraceError as error:
        raise SpecError(f"observations: {error}") from error
    for sample in trace.samples[::stride]:
        by_part = {
            part: {name.removeprefix(f"{part}/"): stage.array for name, stage in sample.stages.items()
                   if name.startswith(f"{part}/")}
            for part in ("raw", "sent")
        }  # fmt: skip
        arrays = by_part["raw"] or by_part["sent"]
        if not arrays:
            raise SpecError(f"observations: {path}: this trace has no stage raw/… or sent/…, from which to begin")
        yield Seen(arrays, {"task": "", **sample.about})


def _dataset(path: Path, policy: PolicySpec, episode: int, stride: int) -> Iterator[Seen]:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    keep_no_copies()
    try:
        dataset = LeRobotDataset(path.name, root=path, episodes=[episode])
    except Exception as error:  # LeRobot, pandas, pyarrow, torchcodec: whatever they like
        raise SpecError(f"observations: {path} cannot be read as a LeRobotDataset: {error!r:.300}") from error
    missing = [name for name in policy.inputs if name not in dataset.features]
    if missing:
        raise SpecError(
            f"observations: {path} has no {', '.join(missing)}; it has {', '.join(dataset.features)}; "
            "--policy.rename says which is which"
        )
    offsets = policy.observation_offsets
    for row in range(0, len(dataset), stride):
        frames: list[Any] = [dataset[max(0, row + offset)] for offset in offsets]
        arrays = {}
        for name, feature in policy.inputs.items():
            stacked = np.stack([_as_robot(frame[name].numpy(), feature) for frame in frames])
            arrays[name] = stacked if len(offsets) > 1 else stacked[0]
        about = {"task": frames[-1]["task"], "tick": int(frames[-1]["frame_index"]), "episode": episode}
        yield Seen(arrays, about)


def _as_robot(array: np.ndarray, feature: Feature) -> np.ndarray:
    """A dataset's pictures are float [3, H, W] in 0-1."""
    if not feature.is_image:
        return array
    return np.ascontiguousarray(np.rint(array.transpose(1, 2, 0) * 255).astype(np.uint8))


def as_sent(seen: Seen, wanted: Wanted, history: int) -> dict[str, np.ndarray]:
    """What the policy is sent of an observation: its inputs; where it wants a history, as one that has just begun.

    Raises SpecError for what is missing, or of another shape.
    """
    sent: dict[str, np.ndarray] = {}
    for name, feature in wanted.items():
        if name not in seen.arrays:
            cameras = name.startswith(IMAGES) and " (a camera: --policy.rename says which is which)"
            raise SpecError(
                f"observations: no {name}{cameras or ''}, which the policy reads; found {', '.join(seen.arrays)}"
            )
        array = np.asarray(seen.arrays[name])
        if history > 1 and array.shape == feature.shape:
            array = np.stack([array] * history)
        expected = (history, *feature.shape) if history > 1 else feature.shape
        if array.shape != expected and not (feature.is_image and array.ndim == len(expected)):
            raise SpecError(f"observations: {name} is {list(array.shape)}; the policy reads {list(expected)}")
        sent[name] = array.astype(feature.dtype) if feature.is_image else array
    return sent
