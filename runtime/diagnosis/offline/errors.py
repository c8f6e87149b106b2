"""Errors of chunks against what was done, summed up by step of the horizon, dimension, episode and task.

frame        s     s+1   …    T-1 | the episode's end
chunk        0     1     …   T-1-s| T-s … H-1: there is nothing to compare with, these steps do not count
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import batched

import numpy as np

from tactus.runtime.recording.demonstrations import Episode, Frame

BLOCK = 256
"""Chunks that are compared at once, which bounds the memory."""

Predict = Callable[[Sequence[Frame], slice], np.ndarray]
"""Of frames, and their places among all that were asked: [n, H, A]."""


@dataclass
class Errors:
    """Sums over all compared actions; float64.

    count: [H]. bias, absolute, squared: [H, A] of predicted − true. largest: [A]. products: [A, 5], sums of p, t, p·p,
    t·t and p·t, where p and t are predicted and true less the true mean. episode_count: [E], episode_absolute and
    episode_squared: [E, A]; the same by task, [K] and [K, A]. std, span: [A], of the true actions of the episodes.
    """

    count: np.ndarray
    bias: np.ndarray
    absolute: np.ndarray
    squared: np.ndarray
    largest: np.ndarray
    products: np.ndarray
    episode_count: np.ndarray
    episode_absolute: np.ndarray
    episode_squared: np.ndarray
    task_count: np.ndarray
    task_absolute: np.ndarray
    task_squared: np.ndarray
    std: np.ndarray
    span: np.ndarray

    @property
    def compared(self) -> int:
        """Actions, of all dimensions each."""
        return int(self.count.sum())

    @property
    def mse_by_dimension(self) -> np.ndarray:
        """[A], in the dimension's unit squared."""
        return self.squared.sum(0) / self.compared

    @property
    def mae_by_dimension(self) -> np.ndarray:
        """[A], in the dimension's unit."""
        return self.absolute.sum(0) / self.compared

    @property
    def bias_by_dimension(self) -> np.ndarray:
        """[A], mean of predicted − true."""
        return self.bias.sum(0) / self.compared

    @property
    def mse(self) -> float:
        """Over all dimensions, whatever their units."""
        return float(self.mse_by_dimension.mean())

    @property
    def mae(self) -> float:
        """Over all dimensions, whatever their units."""
        return float(self.mae_by_dimension.mean())

    @property
    def moving(self) -> np.ndarray:
        """[A], which dimensions of the true actions change at all; only these have relative errors."""
        return self.span > 0

    @property
    def normalised_by_dimension(self) -> np.ndarray:
        """[A], root mean squared error over the true actions' standard deviation; nan where they never change."""
        return np.sqrt(self.mse_by_dimension) / self._or_nan(self.std)

    @property
    def relative_by_dimension(self) -> np.ndarray:
        """[A], mean absolute error over the true actions' range; nan where they never change."""
        return self.mae_by_dimension / self._or_nan(self.span)

    @property
    def normalised(self) -> float:
        """Root mean square over the dimensions that change; nan without any. The mean action has about 1."""
        return _rms(self.normalised_by_dimension)

    @property
    def relative(self) -> float:
        """Mean over the dimensions that change; nan without any."""
        return float(np.mean(found)) if len(found := self.relative_by_dimension[self.moving]) else float("nan")

    @property
    def normalised_by_step(self) -> np.ndarray:
        """[H, A]; nan where nothing was compared."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(self.squared / self.count[:, None]) / self._or_nan(self.std)

    @property
    def normalised_over_horizon(self) -> np.ndarray:
        """[H], root mean square over the dimensions that change."""
        return np.array([_rms(row) for row in self.normalised_by_step])

    @property
    def episode_normalised(self) -> np.ndarray:
        """[E], the sum of squared normalised errors of each episode, over the dimensions that change."""
        return (self.episode_squared[:, self.moving] / self.std[self.moving] ** 2).sum(1)

    @property
    def correlation(self) -> np.ndarray:
        """[A], Pearson's, of predicted and true; nan if either never changes."""
        p, t, pp, tt, pt = self.products.T / self.compared
        spread = np.maximum(pp - p * p, 0) * np.maximum(tt - t * t, 0)
        floor = 1e-12 * np.maximum(pp, 1e-300) * np.maximum(tt, 1e-300)
        return np.where(spread > floor, (pt - p * t) / np.sqrt(np.where(spread > 0, spread, 1)), np.nan)

    def _or_nan(self, scale: np.ndarray) -> np.ndarray:
        return np.where(self.moving, scale, np.nan)


def compare(episodes: Sequence[Episode], frames: Sequence[Frame], horizon: int, predict: Predict) -> Errors:
    """What is predicted at these frames against what was done in their episodes."""
    done = np.concatenate([one.actions for one in episodes]).astype(np.float64)
    mean, width, tasks = done.mean(0), done.shape[1], 1 + max(int(one.tasks.max()) for one in episodes)
    step, by_episode, by_task = (np.zeros((n, width)) for n in (horizon, len(episodes), tasks))
    found = Errors(
        np.zeros(horizon), step, step.copy(), step.copy(), np.zeros(width), np.zeros((width, 5)),
        np.zeros(len(episodes)), by_episode, by_episode.copy(), np.zeros(tasks), by_task, by_task.copy(),
        done.std(0), np.ptp(done, axis=0),
    )  # fmt: skip
    place = 0
    for some in batched(frames, BLOCK):
        true, valid = truth(episodes, some, horizon)
        predicted = predict(some, slice(place, place + len(some))).astype(np.float64)
        place += len(some)
        error = np.where(valid[..., None], predicted - true, 0.0)
        found.count += valid.sum(0)
        found.bias += error.sum(0)
        found.absolute += np.abs(error).sum(0)
        found.squared += (error**2).sum(0)
        found.largest = np.maximum(found.largest, np.abs(error).max((0, 1)))
        p, t = (predicted - mean)[valid], (true - mean)[valid]
        found.products += np.stack([p.sum(0), t.sum(0), (p * p).sum(0), (t * t).sum(0), (p * t).sum(0)], -1)
        groups = np.array([frame.episode for frame in some])
        named = np.array([episodes[frame.episode].tasks[frame.frame] for frame in some])
        for group, count, absolute, squared in (
            (groups, found.episode_count, found.episode_absolute, found.episode_squared),
            (named, found.task_count, found.task_absolute, found.task_squared),
        ):
            np.add.at(count, group, valid.sum(1))
            np.add.at(absolute, group, np.abs(error).sum(1))
            np.add.at(squared, group, (error**2).sum(1))
    return found


def truth(episodes: Sequence[Episode], frames: Sequence[Frame], horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """What was done from each frame on, float64[n, H, A], and which of it there is, bool[n, H]; zeros where not."""
    true = np.zeros((len(frames), horizon, episodes[0].actions.shape[1]))
    valid = np.zeros((len(frames), horizon), bool)
    for row, (episode, frame) in enumerate(frames):
        following = episodes[episode].actions[frame : frame + horizon]
        true[row, : len(following)] = following
        valid[row, : len(following)] = True
    return true, valid


def mean_action(episodes: Sequence[Episode], horizon: int) -> Predict:
    """Baseline: always the mean of the true actions, which only hindsight knows."""
    mean = np.concatenate([one.actions for one in episodes]).astype(np.float64).mean(0)
    return lambda frames, _: np.broadcast_to(mean, (len(frames), horizon, len(mean)))


def last_action(episodes: Sequence[Episode], horizon: int) -> Predict:
    """Baseline: the action before the frame, over and over; at an episode's first frame, the mean action."""
    mean = mean_action(episodes, 1)([Frame(0, 0)], slice(0))[0, 0]

    def predict(frames: Sequence[Frame], _: slice) -> np.ndarray:
        last = [episodes[episode].actions[frame - 1] if frame else mean for episode, frame in frames]
        return np.repeat(np.stack(last)[:, None], horizon, axis=1)

    return predict


def _rms(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")
