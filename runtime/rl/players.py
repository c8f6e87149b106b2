"""Has rollouts played by workers, each once, whatever dies meanwhile: a worker, or the policy node."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tactus.policies.rl.rollouts import Rollout
from tactus.runtime.lab.coordinator import WorkersFailed, decisive, lines
from tactus.runtime.lab.pool import Pool
from tactus.runtime.lab.scheduler import ATTEMPTS, Job, Scheduler
from tactus.runtime.lab.sweep_settings import Cell

LOOK_S = 0.5


class Order(NamedTuple):
    """A rollout to play. episode: how the robot begins. repeat: which of its rollouts. noise_seed: what the policy
    draws. explore: for learning; otherwise as deployed."""

    episode: int
    repeat: int
    noise_seed: int
    explore: bool


class Played(NamedTuple):
    """row, timing: as an evaluation's. rollout: None where nothing was to be learned."""

    row: dict[str, Any]
    timing: dict[str, Any]
    rollout: Rollout | None


class Nodes(Protocol):
    """The policy nodes, and the weights they are to have."""

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None: ...
    def revive(self) -> bool: ...


class Players:
    """workers: how many. most_stale: versions that a rollout may be behind what was published last. say: lines for the
    user."""

    def __init__(
        self, pool: Pool, nodes: Nodes, workers: int, cell: Cell, most_stale: int, say: Callable[[str], None]
    ) -> None:
        self._most_stale = most_stale
        self._pool, self._nodes, self._cell, self._say = pool, nodes, cell, say
        self._wanted = workers
        self._idle: list[int] = []
        self._told: set[str] = set()
        self._facts: dict[str, Any] = {}
        self._deaths = 0
        self.version = 0
        self.lost = 0
        """Rollouts that came to nothing and were played again."""

    def start(self) -> dict[str, Any]:
        """Start the workers; the first one's answer to hello."""
        for _ in range(self._wanted):
            self._start_one()
        hello: dict[str, Any] | None = None
        while hello is None:
            for event in self._pool.wait(LOOK_S):
                if event.answer is None:
                    self._replace(event.worker, event.exit_output)
                elif "failed" in event.answer:
                    raise WorkersFailed(event.answer["failed"], event.answer["status"])
                else:
                    for line in lines(event.answer, self._told):
                        self._say(line)
                    self._admit(event.worker, event.answer)
                    hello = hello or event.answer
        return hello

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """Rollouts that begin from now on are played with these."""
        self._nodes.publish(version, weights)
        self.version = version

    def play(self, orders: Sequence[Order], groups: Mapping[int, str], done: Callable[[Order, Played], None]) -> float:
        """All of them, in any order, each `done` once; returns the seconds that workers were busy. groups: of each
        episode, so that a worker stays with its task. Raises WorkersFailed if that cannot be."""
        jobs = {Job(order.repeat, order.episode): order for order in orders}
        assert len(jobs) == len(orders), "an order twice"
        schedule = Scheduler((groups[job.episode], job) for job in jobs)
        playing: dict[int, Job] = {}
        since_s: dict[int, float] = {}
        busy_s = 0.0
        while schedule.left:
            for worker in list(self._idle):
                job = schedule.next(worker)
                if job is None:
                    break
                self._idle.remove(worker)
                playing[worker], since_s[worker] = job, time.monotonic()
                self._pool.give(worker, {"rollout": {"cell": self._cell.to_dict(), **jobs[job]._asdict()}})
            if self._nodes.revive():
                self._say("the policy node died; another one takes its place")
            for event in self._pool.wait(LOOK_S):
                answer, job = event.answer, playing.pop(event.worker, None)
                for line in lines(answer, self._told):
                    self._say(line)
                if answer is None:
                    schedule.lost(event.worker, True)
                    self.lost += job is not None
                    self._replace(event.worker, event.exit_output)
                elif "robot" in answer:
                    self._admit(event.worker, answer)
                elif "failed" in answer:
                    raise WorkersFailed(answer["failed"], answer["status"])
                elif "lost" in answer:
                    self._say(f"{answer['lost']}; the rollout will be played again")
                    schedule.lost(event.worker, False)
                    self.lost += 1
                    self._idle.append(event.worker)
                else:
                    assert job is not None
                    busy_s += time.monotonic() - since_s[event.worker]
                    self._idle.append(event.worker)
                    self._deaths = 0
                    if not self._take(jobs[job], answer, done):
                        schedule.lost(event.worker, False)
                        self.lost += 1
                        continue
                    schedule.done(event.worker)
            if schedule.given_up:
                raise WorkersFailed(f"episode {schedule.given_up[0].episode}: given up after {ATTEMPTS} attempts")
        return busy_s

    def _take(self, order: Order, answer: Mapping[str, Any], done: Callable[[Order, Played], None]) -> bool:
        """False for one of older weights than may be: of a policy node that has come back anew."""
        oldest = self.version - (self._most_stale if order.explore else 0)
        if any(not oldest <= version <= self.version for version in answer["versions"]):
            found = ", ".join(map(str, answer["versions"]))
            self._say(f"a rollout of version {found} where {self.version} was published is dropped, and played again")
            return False
        rollout = Rollout.from_bytes(base64.b64decode(answer["rollout"])) if order.explore else None
        done(order, Played(answer["row"], answer["timing"], rollout))
        return True

    def _admit(self, worker: int, hello: Mapping[str, Any]) -> None:
        facts = decisive(hello)
        self._facts = self._facts or facts
        if facts != self._facts:
            differ = sorted(key for key in {*facts, *self._facts} if facts.get(key) != self._facts.get(key))
            raise WorkersFailed(f"worker {worker} would play other episodes: {', '.join(differ)} differ")
        self._idle.append(worker)

    def _start_one(self) -> None:
        worker = self._pool.start()
        self._pool.give(worker, {"hello": True})

    def _replace(self, worker: int, exit_output: str) -> None:
        self._idle = [one for one in self._idle if one != worker]
        self._deaths += 1
        if self._deaths > ATTEMPTS:
            raise WorkersFailed(f"workers keep dying; the last one's last words:\n{exit_output}")
        reason = exit_output.splitlines()[0] if exit_output else "no last words"
        self._say(f"worker {worker} died ({reason}); another one takes its place")
        self._start_one()
