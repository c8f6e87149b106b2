"""Demonstrations of a LeRobotDataset in the form in which rollouts are learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tactus.hal.spec import PolicySpec
from tactus.policies.rl.rollouts import Rollout
from tactus.runtime.recording.demonstrations import Demonstrations


def demonstrated(root: Path, policy: PolicySpec) -> list[Rollout]:
    """A rollout per episode, with a decision at every frame; where the policy sees pictures, one a chunk. Raises
    SpecError for what is no dataset, or not one for this policy."""
    dataset = Demonstrations(root, policy)
    pictures = any(feature.is_image for feature in policy.inputs.values())
    stride = (policy.n_action_steps or policy.horizon) if pictures else 1
    frames = dataset.frames(stride)
    found = []
    for number, episode in enumerate(dataset.episodes):
        seen = [dataset.observation(frame) for frame in frames if frame.episode == number]
        starts, nothing = np.array([one.tick for one in seen], np.int64), np.zeros((len(seen), 0), np.float32)
        found.append(
            Rollout(
                episode=episode.number,
                repeat=0,
                success=True,
                ticks=len(episode.actions),
                task=seen[0].task,
                starts=starts,
                versions=np.zeros(len(seen), np.int64),
                observations={name: np.stack([one.arrays[name] for one in seen]) for name in policy.inputs},
                executed=np.zeros((len(seen), policy.horizon), bool),
                points=nothing,
                times=nothing,
                log_prob=nothing,
                actions=episode.actions.astype(np.float32),
                valid=np.ones(len(episode.actions), bool),
            )
        )
    return found
