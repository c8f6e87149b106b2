"""A rollout: what a policy was asked in an episode, how it drew its answers, what was executed, and how it ended.

The robot node makes one (runtime/rl/rollout_recorder.py), a worker sends it as an .npz of plain arrays, and learners
learn from many. No torch: robots' machines may lack it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tactus.hal.spec import Observation


@dataclass(frozen=True)
class Rollout:
    """One episode. D decisions, which are chunks that were asked for and came; P places in the plan, which are ticks at
    which an action was there.

    episode, repeat: which initial state, and which of its rollouts. starts: int64[D], a decision's place in the plan.
    versions: int64[D], of the weights. observations: arrays [D, …] by name. executed: bool[D, H], which actions of the
    chunk were. points, times, log_prob: [D, …] of policies/rl/samplers.py: Drawn. actions: float32[P, A], as sent;
    valid: bool[P], false where nothing was there. seen: arrays [P, …] by name, what there was to observe at each place;
    empty where looking costs too much, as with pictures.
    """

    episode: int
    repeat: int
    success: bool
    ticks: int
    task: str
    starts: np.ndarray
    versions: np.ndarray
    observations: Mapping[str, np.ndarray]
    executed: np.ndarray
    points: np.ndarray
    times: np.ndarray
    log_prob: np.ndarray
    actions: np.ndarray
    valid: np.ndarray
    seen: Mapping[str, np.ndarray] = field(default_factory=dict)

    def observation(self, decision: int) -> Observation:
        """What the policy was given."""
        arrays = {name: array[decision] for name, array in self.observations.items()}
        return Observation(arrays, {}, int(self.starts[decision]), self.task)

    def lessons(self) -> Iterator[tuple[Observation, np.ndarray, np.ndarray]]:
        """What can be imitated: an observation, and its `target`. Of every place that was looked at, be it in the
        middle of a chunk; else of every decision."""
        if self.seen:
            for place in np.flatnonzero(self.valid).tolist():
                arrays = {name: array[place] for name, array in self.seen.items()}
                yield Observation(arrays, {}, place, self.task), *self.target(place)
        else:
            for decision, start in enumerate(self.starts.tolist()):
                yield self.observation(decision), *self.target(start)

    def target(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """float32[H, A], what was done from a place on, whoever decided it, and bool[H], up to the end.

        plan       0 1 2 3 4 5 6 7 8 9     from place 6 on, with H = 8
        executed   a a a a b b b b c c     target  b b c c 0 0 0 0     valid  1 1 1 1 0 0 0 0
        """
        horizon = self.executed.shape[1]
        done = self.actions[start : start + horizon]
        actions = np.zeros((horizon, self.actions.shape[1]), np.float32)
        valid = np.zeros(horizon, bool)
        actions[: len(done)], valid[: len(done)] = done, self.valid[start : start + horizon]
        return actions, valid

    def to_bytes(self) -> bytes:
        """An .npz of plain arrays."""
        about = {key: getattr(self, key) for key in ("episode", "repeat", "success", "ticks", "task")}
        arrays = {key: getattr(self, key) for key in ARRAYS}
        arrays |= {f"observation/{name}": array for name, array in self.observations.items()}
        arrays |= {f"seen/{name}": array for name, array in self.seen.items()}
        file = io.BytesIO()
        np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Rollout:
        """What `to_bytes` made. Raises ValueError for anything else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                about = json.loads(stored["about"].tobytes())
                parts: dict[str, dict[str, np.ndarray]] = {"observation": {}, "seen": {}}
                for key in stored.files:
                    part, _, name = key.partition("/")
                    if name:
                        parts[part][name] = stored[key]
                arrays = {key: stored[key] for key in ARRAYS}
                return cls(**about, observations=parts["observation"], seen=parts["seen"], **arrays)
        except (OSError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"no rollout: {error}") from error


ARRAYS = ("starts", "versions", "executed", "points", "times", "log_prob", "actions", "valid")


def shuffled(rollouts: Sequence[Rollout], rng: np.random.Generator) -> list[bool]:
    """The successes of rollouts, dealt out anew among them: what the control learns from."""
    return rng.permutation([rollout.success for rollout in rollouts]).tolist()


def leave_one_out(successes: Sequence[bool], groups: Sequence[int]) -> np.ndarray:
    """Advantages, float64[N]: each one's reward minus the mean of the others of its group, 0 in groups in which all
    fared alike: from them nothing can be learned.

        rewards 1 0 0 0    advantages 1 -1/3 -1/3 -1/3          (RLOO, arXiv 2402.14740; RIPT, arXiv 2505.17016)
    """
    rewards, members = np.asarray(successes, float), np.asarray(groups)
    advantages = np.zeros(len(rewards))
    for group in np.unique(members):
        here = members == group
        count, total = int(here.sum()), rewards[here].sum()
        if 0 < total < count:
            advantages[here] = rewards[here] - (total - rewards[here]) / (count - 1)
    return advantages
