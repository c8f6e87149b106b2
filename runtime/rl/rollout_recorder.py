"""Watches an episode, and makes of it what a learner learns from: a Rollout."""

from __future__ import annotations

import numpy as np

from tactus.hal.robot import Outcome
from tactus.hal.spec import Chunk, Observation, PolicySpec
from tactus.policies.rl.rollouts import Rollout
from tactus.runtime.robot_node.watcher import Merged, TickView, Watcher


class RolloutRecorder(Watcher):
    """policy: whose chunks are to come. Everything is counted by its place in the plan, so that ticks at which the
    robot stood still and waited are nobody's action. What costs no pictures is looked at at every tick: there is more
    to imitate then than what the policy was asked about."""

    def __init__(self, policy: PolicySpec) -> None:
        self._policy = policy
        self._asked: dict[int, Observation] = {}
        self._chunks: dict[int, Chunk] = {}
        self._executed: dict[int, list[int]] = {}
        self._actions: dict[int, np.ndarray] = {}
        self._view: TickView | None = None
        pictures = any(feature.is_image for feature in policy.inputs.values())
        self._looks = not pictures and len(policy.observation_offsets) == 1
        self._seen: dict[int, dict[str, np.ndarray]] = {}

    def asked(self, tick: int, seq: int, observation: Observation) -> None:
        self._asked[observation.tick] = observation

    def merged(self, merged: Merged) -> None:
        assert merged.reply.chunk is not None
        self._chunks[merged.reply.chunk.start] = merged.reply.chunk

    def before(self, view: TickView) -> None:
        self._view = view
        if self._looks and not view.starved:
            arrays = view.observe().arrays
            self._seen[view.at] = {name: np.array(arrays[name]) for name in self._policy.inputs}
        if view.source >= 0:
            self._executed.setdefault(view.source, []).append(view.at - view.source)

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        assert self._view is not None
        if not self._view.starved:
            self._actions[self._view.at] = np.array(sent, np.float32)

    def rollout(self, episode: int, repeat: int, success: bool, ticks: int) -> Rollout:
        """What there was, when all is over."""
        spec, starts = self._policy, sorted(self._chunks)
        executed = np.zeros((len(starts), spec.horizon), bool)
        for row, start in enumerate(starts):
            executed[row, self._executed.get(start, [])] = True
        places = max(self._actions, default=-1) + 1
        actions = np.zeros((places, *spec.action.shape), np.float32)
        valid = np.zeros(places, bool)
        for place, action in self._actions.items():
            actions[place], valid[place] = action, True
        chunks = [self._chunks[start] for start in starts]
        observations = [self._asked[start] for start in starts]
        return Rollout(
            episode,
            repeat,
            success,
            ticks,
            observations[0].task if observations else "",
            np.array(starts, np.int64),
            np.array([chunk.version for chunk in chunks], np.int64),
            {name: np.stack([seen.arrays[name] for seen in observations]) for name in spec.inputs},
            executed,
            _stacked(chunks, "points"),
            _stacked(chunks, "times"),
            _stacked(chunks, "log_prob"),
            actions,
            valid,
            self._places(places),
        )

    def _places(self, count: int) -> dict[str, np.ndarray]:
        """What was seen at every place, 0 where nothing was."""
        if not self._seen:
            return {}
        nothing = {name: np.zeros_like(array) for name, array in next(iter(self._seen.values())).items()}
        rows = [self._seen.get(place, nothing) for place in range(count)]
        return {name: np.stack([row[name] for row in rows]) for name in nothing}


def _stacked(chunks: list[Chunk], name: str) -> np.ndarray:
    """[D, …]; of a policy that says nothing of how it draws, [D, 0]."""
    return np.stack([chunk.beside.get(name, np.zeros(0, np.float32)) for chunk in chunks])
