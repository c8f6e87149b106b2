"""LeRobotDatasets written offline through LeRobot's own class, and a policy that knows what is in them.

write(tmp_path / "data", episodes=3, cameras={"image": (64, 64)}, action=known)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.spec import STATE, Chunk, Feature, PolicySpec
from tactus.policies.policy import Policy, PolicyConfig, Request, Session
from tactus.runtime.recording.encoder_priority import give_up_real_time

Act = Callable[[int, int], np.ndarray]
"""Episode and frame -> the action."""
WIDTH = 3


def known(episode: int, frame: int, width: int = WIDTH) -> np.ndarray:
    """Eighths between −4 and 4, which float32 and their squares hold exactly."""
    return np.array([((7 * frame + 13 * episode + 5 * d) % 64) / 8 - 4 for d in range(width)], np.float32)


def write(
    root: Path,
    *,
    episodes: int = 3,
    length: int = 20,
    action: Act = known,
    state: Act | None = None,
    cameras: Mapping[str, tuple[int, int]] | None = None,
    video: bool = False,
    fps: int = 10,
    tasks: Sequence[str] = ("push the block",),
    picture: Callable[[int, int, int], np.ndarray] | None = None,
    units: Sequence[str] = (),
    names: Sequence[str] = (),
    robot: str | None = "bench",
) -> Path:
    """Episode e has length + e frames and the tasks by turns. state: [episode, frame] if not given.
    picture: of camera, episode and frame; noise if not given.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    state = state or (lambda episode, frame: np.array([episode, frame], np.float32))
    width = len(action(0, 0))
    features: dict[str, dict[str, Any]] = {
        f"observation.images.{name}": {
            "dtype": "video" if video else "image", "shape": (*size, 3), "names": ["height", "width", "channels"]
        }
        for name, size in (cameras or {}).items()
    }  # fmt: skip
    features[STATE] = {"dtype": "float32", "shape": state(0, 0).shape, "names": None}
    features["action"] = {"dtype": "float32", "shape": (width,), "names": [*names] or None}
    if units:
        features["action"]["info"] = {"unit": [*units]}
    made = LeRobotDataset.create(
        "tactus/made", fps, features, root=root, robot_type=robot, use_videos=video and bool(cameras)
    )
    generator = np.random.default_rng(0)
    for episode in range(episodes):
        for frame in range(length + episode):
            seen: dict[str, Any] = {}
            for index, (name, size) in enumerate((cameras or {}).items()):
                noise = generator.integers(0, 256, (*size, 3), np.uint8)
                seen[f"observation.images.{name}"] = picture(index, episode, frame) if picture else noise
            seen |= {STATE: state(episode, frame), "action": action(episode, frame)}
            made.add_frame({**seen, "task": tasks[episode % len(tasks)]})
        give_up_real_time()
        made.save_episode(parallel_encoding=False)
    made.finalize()
    return root


class Knowing(Policy):
    """Reads the episode and the frame from the state, and answers what `error` makes of what will be done.

    Beyond the episode's end it answers 1000: nobody may compare that.
    """

    def __init__(
        self,
        error: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda true, _: true,
        horizon: int = 8,
        length: int = 20,
        act: Act = known,
        max_batch: int = 4,
        dtype: str = "float32",
    ) -> None:
        self._error, self._horizon, self._length, self._act = error, horizon, length, act
        self.max_batch = max_batch
        self.asked: list[list[tuple[int, int]]] = []
        self.tasks: list[str] = []
        self._generators: dict[str, np.random.Generator] = {}
        width = len(act(0, 0))
        self._spec = PolicySpec("knowing", {STATE: Feature((2,), "float32", "")}, Feature((width,), dtype, ""), horizon)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        self._generators[session.id] = np.random.default_rng(session.seed)
        self.tasks.append(session.task)

    def end(self, session: str) -> None:
        del self._generators[session]

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        self.asked.append([])
        return [self._chunk(request) for request in requests]

    def _chunk(self, request: Request) -> Chunk:
        episode, frame = (int(number) for number in request.observation.arrays[STATE])
        self.asked[-1].append((episode, frame))
        assert frame == request.observation.tick
        end = self._length + episode
        true = np.stack([self._act(episode, min(frame + h, end - 1)) for h in range(self._horizon)])
        answer = self._error(true, self._generators[request.session])
        answer[max(0, end - frame) :] = 1000
        return Chunk(frame, answer.astype(self._spec.action.dtype))


class KnowingConfig(PolicyConfig):
    """For the command line: --policy.type=datasets_made:KnowingConfig."""

    offset: float = 0.0
    """what it adds to the truth"""
    scale: float = 1.0
    """what it multiplies the truth with"""

    entry_point = "datasets_made:build"


def build(config: KnowingConfig) -> Policy:
    return Knowing(lambda true, _: config.scale * true + config.offset)
