"""An open-loop evaluation, from a first look at both ranges to what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tactus.hal.spec import PolicySpec, SpecError
from tactus.policies.policy import Policy
from tactus.runtime.diagnosis.offline.errors import Errors, compare, last_action, mean_action, truth
from tactus.runtime.diagnosis.offline.predictor import ALONE, Call, Predictions, Predictor, spread
from tactus.runtime.diagnosis.offline.scale import Range, check_scale, ranges
from tactus.runtime.diagnosis.offline.trajectories import (
    Similarity,
    Smoothness,
    Trajectory,
    executed,
    similarities,
    smoothness,
)
from tactus.runtime.diagnosis.offline.verdict import Margin, margins, verdict
from tactus.runtime.recording.demonstrations import Demonstrations, Frame

LOOK = 32
"""Frames of the first look."""
POLICY, LAST, MEAN = "the policy", "repeating the last action", "the mean action"


@dataclass(frozen=True)
class Evaluation:
    """predictions: of all frames, in batches. alone: of some of them, one by one; None if the policy takes no batches.
    errors: of the policy and of the baselines, by name. lines: the verdict.
    """

    policy: PolicySpec
    demonstrations: Demonstrations
    stride: int
    seed: int
    looks: list[Range]
    notes: list[str]
    predictions: Predictions
    alone: Predictions | None
    errors: dict[str, Errors]
    trajectories: list[Trajectory]
    smoothness: Smoothness
    similarities: list[Similarity]
    margins: list[Margin]
    lines: list[str]

    @property
    def company(self) -> float | None:
        """The largest difference that being asked in a batch made to an action, in σ; None if that was not tried."""
        if self.alone is None:
            return None
        places = {frame: place for place, frame in enumerate(self.predictions.frames)}
        together = self.predictions.chunks[[places[frame] for frame in self.alone.frames]]
        ours = self.errors[POLICY]
        apart = np.abs(together.astype(np.float64) - self.alone.chunks)[..., ours.moving] / ours.std[ours.moving]
        return float(apart.max(initial=0.0))


class Comparison:
    """What is to be compared; `look` first, then `evaluate`."""

    def __init__(self, policy: Policy, demonstrations: Demonstrations, stride: int | None, seed: int) -> None:
        spec = policy.spec
        self.spec = spec
        self.stride = stride or spec.n_action_steps or spec.horizon
        self._policy = policy
        self._demonstrations = demonstrations
        self._seed = seed
        self._predictor = Predictor(policy, demonstrations, seed)
        self.frames = demonstrations.frames(self.stride)
        self.looks: list[Range] = []

    def look(self) -> list[Range]:
        """The ranges of truth and of predictions at a few frames. Raises SpecError as Predictor.predict does."""
        episodes = self._demonstrations.episodes
        found = self._predictor.predict(spread(self.frames, LOOK))
        true, valid = truth(episodes, found.frames, self._policy.spec.horizon)
        done = np.concatenate([one.actions for one in episodes])
        self.looks = ranges(self._demonstrations.names, found.chunks[valid], true[valid], done, self.spec.action)
        return self.looks

    def check(self) -> list[str]:
        """Notes on what was seen. Raises ScaleError if truth and predictions cannot be compared."""
        return check_scale(self.looks)

    def evaluate(self, done: Callable[[int], object], notes: Sequence[str] = ()) -> Evaluation:
        """done: told how many more frames have been predicted. Raises SpecError as Predictor.predict does."""
        demonstrations, horizon = self._demonstrations, self._policy.spec.horizon
        episodes = demonstrations.episodes
        found = self._predictor.predict(self.frames, done=done)
        alone = None
        if self._policy.max_batch > 1 and len(self.frames) > 1:
            alone = self._predictor.predict(spread(self.frames, ALONE), batch=1)
        errors = {
            POLICY: compare(episodes, self.frames, horizon, lambda _, places: found.chunks[places]),
            LAST: compare(episodes, self.frames, horizon, last_action(episodes, horizon)),
            MEAN: compare(episodes, self.frames, horizon, mean_action(episodes, horizon)),
        }
        ours = errors[POLICY]
        trajectories = executed(episodes, self.frames, found.chunks)
        gaps = margins(ours, {name: errors[name] for name in (LAST, MEAN)}, self._seed)
        return Evaluation(
            self._policy.spec,
            demonstrations,
            self.stride,
            self._seed,
            self.looks,
            [*notes],
            found,
            alone,
            errors,
            trajectories,
            smoothness(episodes, trajectories),
            similarities(episodes, trajectories, np.where(ours.moving, ours.std, 0.0)),
            gaps,
            verdict(ours, gaps),
        )


def latency(calls: Sequence[Call]) -> dict[str, Any]:
    """Of the calls with as many frames as the most have: how many they have, how many calls, and ms."""
    if not calls:
        raise SpecError("no frame was predicted")
    most = max(call.frames for call in calls)
    ms = np.array([call.ms for call in calls if call.frames == most])
    return {
        "frames": most,
        "calls": len(ms),
        "min_ms": float(ms.min()),
        "mean_ms": float(ms.mean()),
        "median_ms": float(np.median(ms)),
        "p95_ms": float(np.percentile(ms, 95)),
        "max_ms": float(ms.max()),
        "frames_per_s": most / float(ms.mean()) * 1000,
    }


def frame_count(demonstrations: Demonstrations, frames: Sequence[Frame]) -> str:
    """What is compared, in words."""
    chosen, total = len(demonstrations.episodes), demonstrations.total_episodes
    of = "" if chosen == total else f" of {total}"
    s = "" if max(chosen, total) == 1 else "s"
    return f"{chosen}{of} episode{s}, {demonstrations.total_frames} frames, {len(frames)} of them asked for a chunk"
