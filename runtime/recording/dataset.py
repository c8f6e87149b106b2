"""Records episodes as a LeRobotDataset (v3), written by LeRobot's own class in a thread of its own.

Each tick is one frame:

observation.*       as they were at the start of the tick; float64 is stored as float32, as LeRobot has it
action              what was really sent, after the robot's limits
requested_action    what the queue gave (its name does not begin with "action", which would make it an output to learn)
next.reward/done/success   how the episode stood after the action; `done` on its last frame, the others only in a sim
intervention, driver       where a person may take over from the policy: whether one had, and who decided the action:
                           policy or person

DIR/meta/tactus.jsonl says, a line for each of the dataset's episodes, which of the run's it was.
"""

from __future__ import annotations

import errno
import json
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np

from tactus.hal.robot import Outcome, Robot, Scene
from tactus.hal.spec import IMAGES, Feature, RobotSpec, SpecError
from tactus.runtime.bounded_queue import BoundedQueue
from tactus.runtime.recording.encoder_priority import give_up_real_time
from tactus.runtime.recording.picture_format import picture_format
from tactus.runtime.robot_node.episode import EpisodeStats, spans
from tactus.runtime.robot_node.watcher import PERSON, Beginning, TickView, Watcher

Frames = Literal["all", "corrections"]
Column = Literal["sent", "requested"]
COLUMNS: tuple[Column, ...] = get_args(Column)
OTHER: dict[Column, str] = {"sent": "requested_action", "requested": "sent_action"}
"""The column beside `action`, by what `action` holds."""
QUEUE_FRAMES = 64
"""Frames that may wait for the writer: two seconds at 30 Hz."""

RESERVE_BYTES = 20_000_000
"""Left free: a parquet file without its end cannot be read, and that is written last, of all episodes."""


class DatasetError(RuntimeError):
    """The dataset could not be written; the episodes saved before are kept."""


@dataclass(frozen=True)
class DatasetConfig:
    """root: a folder that does not exist yet. cameras: names of those to record, None for all. video: as mp4, where the
    encoder takes their size; or as single pictures. action: what the column `action`, which LeRobot trains on, holds;
    the other has its own column. successful_only: forget the other episodes. frames: where a person may take over, and
    each frame says who drove: whole attempts, or what the person did alone, an episode each; None where nobody may.
    """

    root: Path
    cameras: tuple[str, ...] | None = None
    video: bool = True
    action: Column = "sent"
    successful_only: bool = False
    frames: Frames | None = None


class DatasetRecorder(Watcher):
    """A Watcher that writes what it sees: let it watch an episode, `save`, and so on; at last `close`.

    waits: whether the robot's thread may wait for the writer. In virtual time it may; on a real clock a writer that
    falls behind by more than QUEUE_FRAMES ends the run. Images are read in the robot's thread, as renderers need.
    Raises SpecError if the robot or the folder cannot be recorded, before anything is written.
    """

    def __init__(self, config: DatasetConfig, robot: Robot, waits: bool, say: Callable[[str], None] = print) -> None:
        self._config = config
        self._waits = waits
        self._say = say
        self._judged = robot.outcome() is not None
        spec = robot.spec
        self._observations = _recorded(spec, config.cameras)
        self._dtypes = {name: _stored(feature) for name, feature in self._observations.items()}
        self._action_dtype = _stored(spec.action)
        self._check(spec)
        self._dataset = self._create(spec)
        self._task = ""
        self._about: dict[str, Any] = {}
        self._frame: dict[str, Any] | None = None
        self._held: dict[str, Any] | None = None
        self._ticks: list[int] = []
        self._lines = 0
        self._error: Exception | None = None
        self._jobs: BoundedQueue[Callable[[], object] | None] = BoundedQueue(QUEUE_FRAMES)
        # Not a daemon: an interpreter that is interrupted twice still waits until the files are whole.
        self._thread = threading.Thread(target=self._write, name="dataset writer")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def episodes(self) -> int:
        """Episodes in the dataset so far."""
        return self._lines

    def _check(self, spec: RobotSpec) -> None:
        if self._config.root.exists():
            raise SpecError(f"dataset_root: {self._config.root} exists already; give a folder that does not")
        if self._config.action not in COLUMNS:
            raise SpecError(f"dataset_action: found {self._config.action!r}; accepted: {', '.join(COLUMNS)}")
        if spec.fps != int(spec.fps):
            raise SpecError(f"robot.fps: found {spec.fps:g}; a LeRobotDataset takes whole frames per second")
        if self._config.successful_only and not self._judged:
            raise SpecError(f"successful_only: {spec.name} cannot tell a success; leave it out")

    def _create(self, spec: RobotSpec) -> Any:
        try:
            import datasets
            from lerobot.datasets.lerobot_dataset import LeRobotDataset
            from PIL import Image
        except ImportError as error:
            raise SpecError(
                f"recording needs LeRobot ({error}); install it with: pip install 'tactus[policy]'"
            ) from error
        except OSError as error:  # a cache of torch's or the hub's
            raise SpecError(f"LeRobot cannot be imported: {error}; is a cache's folder set that is none?") from error

        datasets.disable_progress_bars()
        self._picture = Image.fromarray
        features: dict[str, dict[str, Any]] = {}
        for name, feature in self._observations.items():
            if feature.is_image:
                kept, why_not_video = picture_format(name, feature, spec.fps, self._config.video)
                features[name] = {"dtype": kept, "shape": feature.shape, "names": ["height", "width", "channels"]}
                if why_not_video:
                    self._say(why_not_video)
            else:
                features[name] = _vector(feature)
        for name in ("action", OTHER[self._config.action]):
            features[name] = _vector(spec.action)
        for name, dtype in (("reward", "float32"), ("success", "bool"), ("done", "bool")):
            if self._judged or name == "done":
                features[f"next.{name}"] = {"dtype": dtype, "shape": (1,), "names": None}
        if self._config.frames is not None:
            features["intervention"] = {"dtype": "bool", "shape": (1,), "names": None}
            features["driver"] = {"dtype": "string", "shape": (1,), "names": None}
        root = self._config.root
        return LeRobotDataset.create(
            repo_id=f"tactus/{root.name}",
            fps=int(spec.fps),
            features=features,
            root=root,
            robot_type=spec.name,
            use_videos=any(feature["dtype"] == "video" for feature in features.values()),
        )

    def begin(self, beginning: Beginning) -> None:
        self._task = beginning.task
        self._held, self._ticks = None, []
        self._about = {"episode": beginning.episode, "seed": beginning.seed}

    def before(self, view: TickView) -> None:
        self._frame = None
        if self._config.frames == "corrections" and view.driver != PERSON:
            self._end_correction()
            return
        seen = view.observe().arrays
        # copies: a camera may reuse its buffer before the writer gets there
        frame: dict[str, Any] = {name: np.array(seen[name], self._dtypes[name]) for name in self._observations}
        frame["task"] = self._task
        requested = "action" if self._config.action == "requested" else OTHER["sent"]
        frame[requested] = np.array(view.action, self._action_dtype)
        if self._config.frames is not None:
            frame |= {"intervention": np.array([view.driver == PERSON]), "driver": view.driver}
        self._frame = frame

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        frame = self._frame
        if frame is None:
            return
        frame["action" if self._config.action == "sent" else OTHER["requested"]] = np.array(sent, self._action_dtype)
        frame["next.done"] = np.array([False])
        if self._judged:
            known = outcome or Outcome(success=False, done=False, reward=0.0)
            frame["next.reward"] = np.array([known.reward], np.float32)
            frame["next.success"] = np.array([known.success])
        # one frame is held back, because only the episode's end tells which is the last
        if self._held is not None:
            self._put(partial(self._add, self._held), tick)
        self._held = frame
        self._ticks.append(tick)

    def _end_correction(self) -> None:
        """A person has handed back: what they did is an episode."""
        if self._held is not None:
            ticks = [self._ticks[0], self._ticks[-1] + 1]
            line = {**self._about, "correction": ticks, "ticks": len(self._ticks), "success": None}
            for job in self._last(line):
                self._put(job, self._ticks[-1])
        self._held, self._ticks = None, []

    def _last(self, line: dict[str, Any]) -> list[Callable[[], object]]:
        """The frame that is held back is an episode's last one, and this its line."""
        assert self._held is not None
        self._held["next.done"] = np.array([True])
        return [partial(self._add, self._held), partial(self._keep, line)]

    def end(self, view: TickView) -> None:
        """Nothing follows the last observation, so it is no frame."""

    def save(self, episode: int, seed: int, scene: Scene, stats: EpisodeStats) -> bool:
        """Keep the episode that has just been watched, or forget it; returns when it is written. True if kept, of
        corrections if the episode ended in one."""
        success = bool(stats.outcome and stats.outcome.success)
        before = self._lines
        if self._config.frames == "corrections":
            self._end_correction()
        elif self._held is not None and (success or not self._config.successful_only):
            if stats.skipped_ticks:
                self._say(
                    f"episode {episode}: {stats.skipped_ticks} ticks were skipped and have no frame; "
                    "the dataset's timestamps run ahead by as many"
                )
            line = {"episode": episode, "seed": seed, "group": scene.group, **scene.labels}
            line |= {"success": success if self._judged else None, "ticks": stats.ticks}
            line |= {"starved_ticks": stats.starved_ticks, "skipped_ticks": stats.skipped_ticks}
            if stats.by_person is not None:
                line["interventions"] = spans(stats.by_person)
            for job in self._last(line):
                self._jobs.put(job)
        else:
            self._jobs.put(self._dataset.clear_episode_buffer)
        self._held = None
        self._jobs.join()
        self._raise()
        return self._lines > before

    def _add(self, frame: dict[str, Any]) -> None:
        # an array of height 1 or 3 LeRobot takes for one whose channels come first; of a Pillow image it makes no guess
        if shutil.disk_usage(self._config.root).free < RESERVE_BYTES:
            raise OSError(errno.ENOSPC, f"under {RESERVE_BYTES // 1_000_000} MB are free, kept for the files' ends")
        pictures = {}
        for name, feature in self._observations.items():
            if feature.is_image:
                if frame[name].shape != feature.shape:
                    raise ValueError(f"{name}: found a picture of shape {frame[name].shape}, expected {feature.shape}")
                pictures[name] = self._picture(frame[name])
        self._dataset.add_frame({**frame, **pictures})

    def _keep(self, line: dict[str, Any]) -> None:
        self._dataset.save_episode(parallel_encoding=False)
        with (self._config.root / "meta" / "tactus.jsonl").open("a") as file:
            file.write(json.dumps({"dataset_episode": self._lines, **line}) + "\n")
        self._lines += 1

    def _put(self, job: Callable[[], object], tick: int) -> None:
        self._raise()
        if self._waits:
            self._jobs.put(job)
            return
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise DatasetError(
                f"tick {tick}: the dataset's writer is {QUEUE_FRAMES} frames behind; this episode is not kept. "
                "Record fewer cameras (dataset_cameras), smaller images, or at a lower rate"
            ) from None

    def _raise(self) -> None:
        if self._error is not None:
            why = (isinstance(self._error, OSError) and self._error.strerror) or self._error
            raise DatasetError(
                f"{self._config.root} could not be written: {why}; {self._lines} episodes are kept"
            ) from self._error

    def _write(self) -> None:
        """The writer's thread. After an error it goes on taking jobs, undone, so that `save` never waits forever."""
        give_up_real_time()
        while (job := self._jobs.get()) is not None:
            if self._error is None:
                try:
                    job()
                except Exception as error:  # noqa: BLE001 - told by the thread that waits for it
                    self._error = error
            self._jobs.task_done()
        self._jobs.task_done()

    def close(self) -> None:
        """Forget an episode that was not saved, and make the files whole; a folder without an episode is removed.

        Raises DatasetError if that fails. Without it (a process killed outright) the dataset cannot be read.
        """
        if not self._thread.is_alive():
            return
        self._jobs.put(None)
        self._thread.join()
        try:
            if self._dataset.has_pending_frames():
                self._dataset.clear_episode_buffer()
            self._dataset.finalize()
            if self._lines:
                self._say(f"dataset: {self._config.root}, {self._lines} episodes")
            else:
                self._say(f"dataset: no episode to keep; {self._config.root} is removed")
                shutil.rmtree(self._config.root)
        except Exception as error:
            raise DatasetError(f"{self._config.root} could not be finished: {error}") from error


def _recorded(spec: RobotSpec, cameras: tuple[str, ...] | None) -> dict[str, Feature]:
    """The observation features without the cameras that were not asked for."""
    known = {name.removeprefix(IMAGES): name for name, feature in spec.observations.items() if feature.is_image}
    unknown = [camera for camera in cameras or () if camera not in known]
    if unknown:
        raise SpecError(
            f"dataset_cameras: found {', '.join(unknown)}; this robot has {', '.join(known) or 'no camera'}"
        )
    wanted = {*known.values()} if cameras is None else {known[camera] for camera in cameras}
    return {name: feature for name, feature in spec.observations.items() if not feature.is_image or name in wanted}


def _stored(feature: Feature) -> str:
    return "float32" if feature.dtype in ("float64", "float16") else feature.dtype


def _vector(feature: Feature) -> dict[str, Any]:
    """LeRobot's description of a feature; units stand under `info`, beside the names its tools look up."""
    width = int(np.prod(feature.shape))
    units = [feature.unit] * width if isinstance(feature.unit, str) else list(feature.unit)
    names = list(feature.names) or [str(i) for i in range(width)]
    return {"dtype": _stored(feature), "shape": feature.shape, "names": names, "info": {"unit": units}}
