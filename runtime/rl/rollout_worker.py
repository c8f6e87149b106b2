"""A worker that plays rollouts: one of an evaluation that takes one more order.

{"rollout": {"cell": …, "episode": 3, "repeat": 0, "noise_seed": 7, "explore": true}}
                                          {"row": …, "timing": …, "versions": [of the weights],
                                           "rollout": base64 of Rollout.to_bytes}

`episode` says how the robot begins, `noise_seed` what the policy draws. Without `explore` the policy does as it is
deployed, and no rollout comes with the row. Its answer to hello also has "scenes", what each episode will be.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from tactus.hal.spec import PolicySpec, SpecError
from tactus.runtime.lab.episode_runner import EpisodeRunner, WorkerConfig
from tactus.runtime.lab.sweep_settings import Cell
from tactus.runtime.lab.worker import Worker, main
from tactus.runtime.rl.rollout_recorder import RolloutRecorder
from tactus.runtime.wire.link import Link

KIND = "tactus.runtime.rl.rollout_worker:RolloutWorker"


class RolloutLink(Link):
    """A link whose policy draws noise from a seed of its own, and explores if it is to."""

    noise_seed: int | None = None
    explore = False

    def reset(self, episode: int, seed: int, task: str, explore: bool = False) -> None:
        if self.noise_seed is not None:
            episode, seed = 0, self.noise_seed
        super().reset(episode, seed, task, self.explore)


class RolloutRunner(EpisodeRunner):
    """Plays rollouts."""

    link_type = RolloutLink
    _drawn: tuple[int | None, bool] = None, False

    def _connect(self, name: str, timeout_s: float) -> PolicySpec:
        spec = super()._connect(name, timeout_s)
        self._tell_links()
        return spec

    def _tell_links(self) -> None:
        for link in self._links.values():
            assert isinstance(link, RolloutLink)
            link.noise_seed, link.explore = self._drawn

    def rollout(self, cell: Cell, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """One, as the order says."""
        self._drawn = int(wanted["noise_seed"]), bool(wanted["explore"])
        self._tell_links()
        episode, recorder = int(wanted["episode"]), RolloutRecorder(self.policies[cell.policy])
        row, timing = self.play(cell, episode, [recorder])
        rollout = recorder.rollout(episode, int(wanted["repeat"]), row["success"], row["ticks"])
        answer: dict[str, Any] = {"row": row, "timing": timing, "versions": sorted({*rollout.versions.tolist()})}
        if wanted["explore"]:
            answer["rollout"] = base64.b64encode(rollout.to_bytes()).decode()
        return answer


class RolloutWorker(Worker):
    """Obeys orders."""

    def _make(self, config: WorkerConfig, endpoints: Mapping[str, str]) -> EpisodeRunner:
        runner = RolloutRunner(config, endpoints)
        robot = runner.robot
        if robot.wall_time or robot.outcome() is None:
            raise SpecError(f"robot: {robot.spec.name} is no simulation with an outcome; it cannot be practised on")
        return runner

    def _obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        answer = super()._obey(order)
        if "hello" in order:
            scenes = [self._runner.robot.scene(episode) for episode in range(self._episodes)]
            answer["scenes"] = [[scene.group, scene.task, dict(scene.labels)] for scene in scenes]
        return answer

    def _play(self, verb: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        if verb == "rollout":
            return self._runner.rollout(Cell.from_dict(wanted["cell"]), wanted)
        return super()._play(verb, wanted)


if __name__ == "__main__":
    main(RolloutWorker)
