"""The loop of a practice: rollouts, learning, new weights for the policy node."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tactus.policies.rl.config import PracticeConfig
from tactus.policies.rl.data_parallel import broadcast, processes
from tactus.policies.rl.learner import Learner
from tactus.policies.rl.rollouts import Rollout, leave_one_out, shuffled
from tactus.runtime.rl.players import Order, Played, Players
from tactus.runtime.rl.practice_folder import PracticeFolder
from tactus.runtime.statistics import wilson

APART = 1_000_003
"""Between the noise seeds of two evaluations of the same initial state; the first one's is `tactus eval`'s own."""
Bars = Callable[[str, int], Callable[[int], object]]


class Practice:
    """learner: of this process. players: None in all processes of torchrun but the first, which has rollouts played,
    hands them to the others, and writes. groups: of each episode. seed: the robot's. about: what makes two practices
    one and the same. demonstrations: imitated beside successes."""

    def __init__(
        self,
        learner: Learner,
        players: Players | None,
        groups: Sequence[str],
        config: PracticeConfig,
        seed: int,
        folder: Path,
        about: Mapping[str, str],
        say: Callable[[str], None],
        bars: Bars,
        demonstrations: Sequence[Rollout] = (),
    ) -> None:
        self._demonstrations = [*demonstrations]
        self._learner, self._players, self._config, self._seed = learner, players, config, seed
        self._groups = dict(enumerate(groups))
        self._folder, self._about, self._say, self._bars = PracticeFolder(folder), dict(about), say, bars
        self._recent: dict[int, list[Rollout]] = {}
        self._seconds: dict[str, float] = {}
        self._thread = ThreadPoolExecutor(1)
        self._ahead: Future[list[Rollout]] | None = None

    def run(self) -> list[dict[str, Any]]:
        """All iterations that are still to come; the lines of metrics.jsonl. Raises WorkersFailed, ResultsError,
        SpecError; what is done is kept."""
        learner, config, folder = self._learner, self._config, self._folder
        if folder.state.is_file():
            learner.load_state(folder.state, self._about)
        if self._players is not None:
            folder.keep_lines(learner.iteration)
            if learner.iteration:
                self._players.publish(learner.iteration, learner.arrays())
        first = max(0, learner.iteration - self._kept + 1)
        for iteration in range(first, learner.iteration):
            self._recent[iteration] = self._imitable(iteration, self._shared(self._on_disk(iteration)))
        while learner.iteration < config.iterations:
            self._iterate(learner.iteration)
        evaluation = self._evaluate(learner.iteration)
        if self._players is not None:
            number = {"iteration": learner.iteration}
            folder.write_lines({**number, "evaluation": evaluation}, {**number, "seconds": self._rounded()})
            learner.save(folder.last)
        return folder.lines()

    def _iterate(self, iteration: int) -> None:
        learner, config = self._learner, self._config
        every = config.eval_every
        due = iteration == 0 or (every and iteration % every == 0)
        evaluation = self._evaluate(iteration) if due else None
        rollouts = self._shared(self._ahead.result() if self._ahead else self._play(iteration))
        self._ahead = None
        if config.overlap and iteration + 1 < config.iterations:
            self._ahead = self._thread.submit(self._play, iteration + 1)
        began_s = time.monotonic()
        successes = self._rewards(iteration, rollouts)
        advantages = leave_one_out(successes, [rollout.episode for rollout in rollouts])
        self._recent[iteration] = self._imitable(iteration, rollouts)
        self._recent = {i: kept for i, kept in self._recent.items() if i > iteration - self._kept}
        imitated = [rollout for _, kept in sorted(self._recent.items()) for rollout in kept]
        figures = learner.learn(rollouts, advantages.tolist(), [*imitated, *self._demonstrations])
        self._seconds["learning"] = time.monotonic() - began_s
        if self._players is None:
            return
        line = {
            "iteration": iteration,
            "rollouts": len(rollouts),
            "successes": sum(rollout.success for rollout in rollouts),
            "mixed_states": len({r.episode for r, a in zip(rollouts, advantages, strict=True) if a}),
            "ticks": sum(rollout.ticks for rollout in rollouts),
            **figures,
            "evaluation": evaluation,
        }
        timings = {"iteration": iteration, "lost": self._players.lost, "seconds": self._rounded()}
        self._folder.write_lines(line, timings)
        learner.save_state(self._folder.state, self._about)
        if self._ahead is not None:
            self._ahead.result()  # before it is published: none begins with one version where another was meant
        began_s = time.monotonic()
        self._players.publish(learner.iteration, learner.arrays())
        self._seconds = {"publishing": time.monotonic() - began_s}
        self._folder.drop_rollouts(iteration - self._kept + 1)
        self._say(_told(line))

    @property
    def _kept(self) -> int:
        """Iterations whose rollouts are needed again."""
        config = self._config
        return config.window if config.imitates else 1

    def _imitable(self, iteration: int, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Those that are to be imitated, without how they were drawn, which takes memory."""
        rewards = self._rewards(iteration, rollouts)
        nothing = np.zeros((0, 0), np.float32)
        return [
            replace(rollout, points=nothing, times=nothing, log_prob=nothing)
            for rollout, success in zip(rollouts, rewards, strict=True)
            if success
        ]

    def _rewards(self, iteration: int, rollouts: Sequence[Rollout]) -> list[bool]:
        """As they were; for the control, dealt out anew, by the iteration's number alone."""
        if not self._config.shuffle_rewards:
            return [rollout.success for rollout in rollouts]
        return shuffled(rollouts, np.random.default_rng([self._config.seed, iteration, 1]))

    # rollouts

    def _orders(self, iteration: int) -> list[Order]:
        """The iteration's rollouts: some initial states of the training set, each several times."""
        config = self._config
        rng = np.random.default_rng([config.seed, iteration, 0])
        count = min(config.states, config.train_states)
        states = sorted(rng.choice(config.train_states, count, replace=False).tolist())
        return [
            Order(state, repeat, _noise_seed(config.seed, iteration, state, repeat), True)
            for state in states
            for repeat in range(config.rollouts)
        ]

    def _play(self, iteration: int) -> list[Rollout]:
        """Those that are not on disk yet are played."""
        if self._players is None:
            return []
        orders = self._orders(iteration)
        left = [order for order in orders if not self._folder.rollout(iteration, order).is_file()]
        played = self._bars(f"iteration {iteration}", len(orders))
        played(len(orders) - len(left))
        began_s = time.monotonic()

        def done(order: Order, result: Played) -> None:
            assert result.rollout is not None
            self._folder.write_rollout(iteration, order, result.rollout)
            played(1)

        busy_s = self._players.play(left, self._groups, done)
        self._seconds |= {"rollouts": time.monotonic() - began_s, "workers": busy_s}
        return self._on_disk(iteration)

    def _on_disk(self, iteration: int) -> list[Rollout]:
        """An iteration's rollouts, in the order in which they were drawn."""
        if self._players is None:
            return []
        return self._folder.rollouts(iteration, self._orders(iteration))

    def _shared(self, rollouts: list[Rollout]) -> list[Rollout]:
        """The first process's rollouts, in every process."""
        if processes() == 1:
            return rollouts
        return [Rollout.from_bytes(one) for one in broadcast([rollout.to_bytes() for rollout in rollouts])]

    # evaluation

    def _evaluate(self, version: int) -> dict[str, Any] | None:
        """On the held-out initial states, as deployed; the best one's weights are kept as a checkpoint."""
        if self._players is None:
            return None
        config = self._config
        held_out = range(config.train_states, config.train_states + config.held_out)
        orders = [
            Order(state, repeat, self._seed + state + APART * repeat, False)
            for repeat in range(config.eval_rollouts)
            for state in held_out
        ]
        rows = self._folder.evaluated(version)
        left = [order for order in orders if (order.episode, order.repeat) not in rows]
        played = self._bars(f"evaluation {version}", len(orders))
        played(len(orders) - len(left))
        began_s = time.monotonic()

        def done(order: Order, result: Played) -> None:
            row = {"repeat": order.repeat, **result.row}
            rows[order.episode, order.repeat] = row
            self._folder.write_evaluated(version, row)
            played(1)

        self._players.play(left, self._groups, done)
        self._seconds["evaluation"] = time.monotonic() - began_s
        successes = sum(row["success"] for row in rows.values())
        low, high = wilson(successes, len(rows))
        found = {"successes": successes, "episodes": len(rows), "low": round(low, 4), "high": round(high, 4)}
        before = [one["evaluation"]["successes"] for one in self._folder.lines() if one.get("evaluation")]
        if all(successes > earlier for earlier in before):
            self._folder.save_best(self._learner.save)
        self._say(f"version {version}: {successes} of {len(rows)} held out [{100 * low:.0f}, {100 * high:.0f}] %")
        return found

    def _rounded(self) -> dict[str, float]:
        return {part: round(seconds, 3) for part, seconds in self._seconds.items()}


def _noise_seed(seed: int, iteration: int, state: int, repeat: int) -> int:
    drawn = np.random.SeedSequence([seed, iteration, state, repeat]).generate_state(1, np.uint64)
    return int(drawn[0] >> np.uint64(2))


def _told(line: Mapping[str, Any]) -> str:
    rate = line["successes"] / max(1, line["rollouts"])
    more = ", ".join(f"{key} {line[key]:.3g}" for key in ("loss", "kl", "clipped", "ratio_error") if key in line)
    refused = f", {line['refused']:.0f} steps beyond the KL limit taken back" if line.get("refused") else ""
    return f"iteration {line['iteration']}: {rate:.0%} of {line['rollouts']} rollouts; {more}{refused}"
