"""What would have been executed of the chunks, as a trajectory beside the true one: how smooth, and how alike.

chunks asked at 0, 4, 8    0 0 0 0 4 4 4 4 8 8 …

each until the next one; where no chunk reaches, with a stride beyond the horizon, there is a gap
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import similaritymeasures

from tactus.runtime.diagnosis.offline.predictor import spread
from tactus.runtime.recording.demonstrations import Episode, Frame
from tactus.runtime.robot_node.action_smoothness import action_std, jump_sums, rms_jump

POINTS = 400
"""Of a trajectory that are compared by DTW and Fréchet, evenly spread: their cost grows with the square."""
EPISODES = 100
"""That are compared so, evenly spread."""


class Trajectory(NamedTuple):
    """actions: [T, A], nan where no chunk reaches. sources: [T], the frame whose chunk each is of, -1 for none."""

    actions: np.ndarray
    sources: np.ndarray


class Similarity(NamedTuple):
    """Of an episode's trajectories, in σ of the true actions. apart: mean distance frame by frame. dtw: mean
    distance along the best alignment in time (dynamic time warping). frechet: the largest distance that the best
    common walk along both has. All are of distances in all moving dimensions, over √A.
    """

    episode: int
    apart: float
    dtw: float
    frechet: float


class Smoothness(NamedTuple):
    """Root mean square of ‖Δaction/σ‖ from frame to frame: true, inside chunks, where they meet; None without any."""

    true: float | None
    inside: float | None
    seam: float | None


def executed(episodes: Sequence[Episode], frames: Sequence[Frame], chunks: np.ndarray) -> list[Trajectory]:
    """One an episode. frames: ascending within an episode, as they were asked."""
    found = []
    for one in episodes:
        length, width = one.actions.shape
        found.append(Trajectory(np.full((length, width), np.nan), np.full(length, -1)))
    for (episode, frame), chunk in zip(frames, chunks, strict=True):
        actions, sources = found[episode]
        reach = min(len(chunk), len(actions) - frame)
        actions[frame : frame + reach] = chunk[:reach]
        sources[frame : frame + reach] = frame
    return found


def smoothness(episodes: Sequence[Episode], trajectories: Sequence[Trajectory]) -> Smoothness:
    """Of all episodes together."""
    true = [jump_sums([*one.actions], [0] * len(one.actions)) for one in episodes]
    std = action_std(true)
    ours = [jump_sums([*np.nan_to_num(one.actions)], one.sources.tolist()) for one in trajectories]
    return Smoothness(rms_jump(true, std, "inside"), rms_jump(ours, std, "inside"), rms_jump(ours, std, "seam"))


def similarities(episodes: Sequence[Episode], trajectories: Sequence[Trajectory], std: np.ndarray) -> list[Similarity]:
    """std: [A], of the true actions, 0 where they never change. None of an episode without two predicted frames."""
    moving = std > 0
    found = []
    for place in [frame.episode for frame in spread([Frame(e, 0) for e in range(len(episodes))], EPISODES)]:
        covered = trajectories[place].sources >= 0
        if covered.sum() < 2 or not moving.any():
            continue
        scale = std[moving] * np.sqrt(moving.sum())
        true = (episodes[place].actions[covered][:, moving] / scale).astype(np.float64)
        ours = trajectories[place].actions[covered][:, moving] / scale
        apart = float(np.linalg.norm(ours - true, axis=1).mean())
        points = np.unique(np.linspace(0, len(true) - 1, min(POINTS, len(true))).round().astype(int))
        a, b = true[points], ours[points]
        warped, costs = similaritymeasures.dtw(a, b)
        steps = len(similaritymeasures.dtw_path(costs))
        frechet = float(similaritymeasures.frechet_dist(a, b))
        found.append(Similarity(episodes[place].number, apart, float(warped) / steps, frechet))
    return found
