"""The observations that a student learns from, and those that are held out to see whether it has learnt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tactus.hal.robot import Robot
from tactus.hal.spec import Observation, PolicySpec, SpecError
from tactus.policies.policy import Policy
from tactus.runtime.diagnosis.sources import as_sent, recorded
from tactus.runtime.distillation.rollouts import play
from tactus.runtime.recording.demonstrations import Demonstrations

GROUP = 50
"""Observations of a recording without episodes that are held out, or not, together: neighbours are nearly the same."""


class Observations(NamedTuple):
    """training, held_out: of different episodes. source: in words."""

    training: list[Observation]
    held_out: list[Observation]
    source: str


def from_recording(path: Path, policy: PolicySpec, most: int, held_out: float, allow: Sequence[str]) -> Observations:
    """A LeRobotDataset, a flight record, an .npz or a trace: at most so many, evenly out of it all.

    Raises SpecError for what is none, lacks an input of the policy, or is too little to hold any out.
    """
    if (path / "meta" / "info.json").is_file():
        rows, source = _dataset(path, policy, most, allow)
    else:
        rows, source = _other(path, policy), str(path)
    kept = _Evenly(most)
    for row in rows:
        kept.add(*row)
    return _split(kept.chosen, held_out, source)


def from_rollouts(
    robot: Robot,
    policy: Policy,
    episodes: int,
    most: int,
    held_out: float,
    seed: int,
    progress: Callable[[int], object] = lambda episode: None,
) -> Observations:
    """What the policy sees at every tick of its own episodes 0 … episodes - 1, in virtual time."""
    kept = _Evenly(most)
    for episode in range(episodes):
        play(robot, policy, episode, seed, lambda seen, episode=episode: kept.add(episode, seen))
        progress(episode)
    return _split(kept.chosen, held_out, f"{episodes} episodes of the teacher on {robot.spec.name}")


def save(found: Observations, file: Path) -> None:
    """Whole, as an .npz of plain arrays: rollouts need not be played again."""
    rows = [*found.training, *found.held_out]
    arrays = {f"array/{name}": np.stack([row.arrays[name] for row in rows]) for name in rows[0].arrays}
    about = {"tasks": np.array([row.task for row in rows]), "held_out": np.array(len(found.held_out))}
    scratch = file.with_suffix(".partial.npz")
    np.savez_compressed(scratch, **about, **arrays, source=np.array(found.source))  # type: ignore[arg-type]
    os.replace(scratch, file)


def load(file: Path) -> Observations:
    """What `save` wrote. Raises SpecError for a file that is broken."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name.removeprefix("array/"): stored[name] for name in stored.files if name.startswith("array/")}
            tasks, out, source = stored["tasks"], int(stored["held_out"]), str(stored["source"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise SpecError(f"observations: {file} cannot be read: {error}; delete it, and it is made again") from error
    rows = [Observation({n: a[i] for n, a in arrays.items()}, {}, 0, str(task)) for i, task in enumerate(tasks)]
    return Observations(rows[: len(rows) - out], rows[len(rows) - out :], source)


def _dataset(
    path: Path, policy: PolicySpec, most: int, allow: Sequence[str]
) -> tuple[Iterator[tuple[int, Observation]], str]:
    demonstrations = Demonstrations(path, policy, None, allow)
    frames = demonstrations.frames(max(1, -(-demonstrations.total_frames // most)))
    rows = ((frame.episode, demonstrations.observation(frame)) for frame in frames)
    return rows, f"{path}, {len(frames)} of {demonstrations.total_frames} frames"


class _Evenly:
    """Keeps `most` of rows whose number is not known beforehand, and never more than twice as many."""

    def __init__(self, most: int) -> None:
        self._most, self._stride, self._seen = most, 1, 0
        self._rows: list[tuple[int, Observation]] = []

    def add(self, episode: int, observation: Observation) -> None:
        if self._seen % self._stride == 0:
            self._rows.append((episode, observation))
        self._seen += 1
        if len(self._rows) == 2 * self._most:
            self._rows, self._stride = self._rows[::2], 2 * self._stride

    @property
    def chosen(self) -> list[tuple[int, Observation]]:
        places = np.linspace(0, len(self._rows) - 1, min(self._most, len(self._rows))).round().astype(int)
        return [self._rows[place] for place in places]


def _other(path: Path, policy: PolicySpec) -> Iterator[tuple[int, Observation]]:
    history = len(policy.observation_offsets)
    for index, seen in enumerate(recorded(path, policy, 0, 1)):
        arrays = as_sent(seen, policy.inputs, history)
        yield index // GROUP, Observation(arrays, {}, int(seen.about.get("tick", 0)), str(seen.about.get("task", "")))


def _split(rows: list[tuple[int, Observation]], share: float, source: str) -> Observations:
    """Every so many-th episode is held out, from the last one backwards."""
    episodes = sorted({episode for episode, _ in rows})
    if len(episodes) < 2:
        raise SpecError(
            f"observations: {source} has {len(episodes)} episode{'s' if len(episodes) != 1 else ''}; at least two are "
            "needed, since some are held out"
        )
    every = max(2, round(1 / share))
    out = {episode for place, episode in enumerate(reversed(episodes)) if place % every == 0}
    training = [seen for episode, seen in rows if episode not in out]
    return Observations(training, [seen for episode, seen in rows if episode in out], source)
