"""Shares out episodes among workers until every one of every cell is played, and writes each down once."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tactus.runtime.evaluation.results import Results
from tactus.runtime.lab.pool import Event, Pool
from tactus.runtime.lab.scheduler import ATTEMPTS, Job, Scheduler
from tactus.runtime.lab.sweep_settings import Cell
from tactus.runtime.lab.worker_limit import Usage, affordable

Say = Callable[[str], None]
Progress = Callable[[Cell, dict[str, Any]], None]
ANSWERS_EVERY_S = 0.5


class WorkersFailed(RuntimeError):
    """The run cannot go on; what is finished is kept. status: the exit status that says why."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class FilmRequest:
    """An episode to play once more, for its pictures. row: how it went the first time."""

    cell: Cell
    row: Mapping[str, Any]


def lines(answer: Mapping[str, Any] | None, told: set[str]) -> list[str]:
    """What an answer has for the user. Workers begin with the same lines: those that come with a hello are given once,
    and kept in `told`."""
    if answer is None or "robot" not in answer:
        return [] if answer is None else list(answer["said"])
    new = [line for line in dict.fromkeys(answer["said"]) if line not in told]
    told.update(new)
    return new


class Coordinator:
    """workers: how many; None to measure the first one and choose. say: lines for the user."""

    def __init__(self, pool: Pool, workers: int | None, say: Say) -> None:
        self._pool = pool
        self._wanted = workers
        self._say = say
        self._idle: list[int] = []
        self._busy: dict[int, float] = {}
        self._deaths = 0  # since an episode was last finished
        self._told: set[str] = set()
        self._facts: dict[str, Any] = {}  # what decides an episode, as the first worker has it
        self.workers = 0
        """Workers that are up, or on their way."""

    def start(self, jobs: int) -> dict[str, Any]:
        """Start the workers, all at once if it is known how many: the first answer to hello, with robot, policies and
        groups. jobs: episodes there are to play, at most.

        Raises WorkersFailed if it cannot start, with the reason.
        """
        self._grow(min(self._wanted or 1, jobs))
        while not self._idle:
            for event in self._pool.wait(ANSWERS_EVERY_S):
                if event.answer is None:
                    self._replace(event)
                elif "failed" in event.answer:
                    raise WorkersFailed(event.answer["failed"], event.answer["status"])
                else:
                    self._busy.pop(event.worker)
                    for line in lines(event.answer, self._told):
                        self._say(line)
                    self._admit(event.worker, event.answer)
                    hello = event.answer
        return hello

    def play(self, results: Sequence[Results], cells: Sequence[Cell], groups: Sequence[str], progress: Progress) -> int:
        """Every episode of every cell that `results` does not hold yet; returns how many were given up.

        Raises WorkersFailed when no worker is left that could go on, ResultsError if the disk takes no more.
        """
        jobs = [
            (group, Job(index, episode))
            for episode, group in enumerate(groups)
            for index, cell in enumerate(cells)
            if episode not in results[index].finished
        ]
        schedule = Scheduler(jobs)
        if self._wanted is not None:
            self._grow(min(self._wanted, len(jobs)))
        while schedule.left:
            self._deal(schedule, cells)
            for event, busy_s in self._events():
                answer = event.answer
                if answer is None:
                    self._lost(schedule, event.worker, True, cells)
                    self._replace(event)
                elif "lost" in answer:
                    self._say(f"{answer['lost']}; the episode will be played again")
                    self._lost(schedule, event.worker, False, cells)
                    self._idle.append(event.worker)
                elif "failed" in answer:
                    self._lost(schedule, event.worker, True, cells)
                    self._retire(event.worker, answer)
                elif "row" in answer:
                    self._idle.append(event.worker)
                    self._deaths = 0
                    job = schedule.done(event.worker)
                    results[job.cell].add(answer["row"], {**answer["timing"], "worker": event.worker})
                    progress(cells[job.cell], answer["row"])
                    if self._wanted is None:
                        self._choose(answer, busy_s, schedule.left)
                else:
                    self._admit(event.worker, answer)  # a later worker has said hello
        return len(schedule.given_up)

    def film(self, films: Sequence[FilmRequest], keep: Callable[[FilmRequest, dict[str, Any], bytes], None]) -> None:
        """Play these once more; keep: gets each one's new line and its pictures, if the robot has a camera.

        A film that comes to nothing is said so, and not tried again.
        """
        waiting, playing = list(films), {}
        while waiting or playing:
            while waiting and self._idle:
                film, worker = waiting.pop(0), self._idle.pop(0)
                order = {"cell": film.cell.to_dict(), "episode": film.row["episode"], "ticks": film.row["ticks"]}
                self._order(worker, {"film": order})
                playing[worker] = film
            if not playing and not self._busy:
                raise WorkersFailed("no worker is left to film")
            for event, _ in self._events():
                answer, film = event.answer, playing.pop(event.worker, None)
                if film is not None and answer is not None and "row" in answer:
                    keep(film, answer["row"], base64.b64decode(answer["jpeg"]))
                elif film is not None:
                    why = answer.get("lost") or answer["failed"] if answer else f"worker {event.worker} died"
                    self._say(f"episode {film.row['episode']} of {film.cell.name} was not filmed: {why}")
                if answer is None:
                    self._replace(event)
                elif "robot" in answer:
                    self._admit(event.worker, answer)
                else:
                    self._idle.append(event.worker)

    def _events(self) -> Iterator[tuple[Event, float]]:
        """What has come from workers, and how long each was busy with it; lines for the user are passed on."""
        for event in self._pool.wait(ANSWERS_EVERY_S):
            busy_s = time.monotonic() - self._busy.pop(event.worker, 0.0)
            for line in lines(event.answer, self._told):
                self._say(line)
            yield event, busy_s

    def _deal(self, schedule: Scheduler, cells: Sequence[Cell]) -> None:
        for worker in list(self._idle):
            job = schedule.next(worker)
            if job is None:
                return
            self._idle.remove(worker)
            self._order(worker, {"play": {"cell": cells[job.cell].to_dict(), "episode": job.episode}})

    def _admit(self, worker: int, hello: Mapping[str, Any]) -> None:
        """A worker may play if its robot and policies are the first one's: on another machine, files and versions may
        be others, and behind another address another policy."""
        facts = decisive(hello)
        self._facts = self._facts or facts
        differ = [
            f"{key}: {self._facts.get(key)} at the first worker, {facts.get(key)} here"
            for key in sorted({*facts, *self._facts})
            if facts.get(key) != self._facts.get(key)
        ]
        if differ:
            self._retire(worker, {"failed": f"it would play other episodes; {'; '.join(differ)}", "status": 1})
        else:
            self._idle.append(worker)

    def _order(self, worker: int, order: Mapping[str, Any]) -> None:
        self._busy[worker] = time.monotonic()
        self._pool.give(worker, order)

    def _grow(self, wanted: int) -> None:
        while self.workers < wanted:
            self.workers += 1
            self._order(self._pool.start(), {"hello": True})

    def _choose(self, answer: Mapping[str, Any], wall_s: float, left: int) -> None:
        """After the first episode: as many workers as this machine carries."""
        timing, used = answer["timing"], answer["usage"]
        policy_s = sum(timing["inference_ms"]) / 1000
        usage = Usage(used["pid"], used["cpu_s"] / used["wall_s"], policy_s / max(wall_s, 1e-9), used["rss_bytes"])
        self._wanted, why = affordable(usage, left)
        self._say(f"workers: {self._wanted} ({why})")
        self._grow(self._wanted)

    def _lost(self, schedule: Scheduler, worker: int, gone: bool, cells: Sequence[Cell]) -> None:
        job = schedule.lost(worker, gone)
        if job is not None:
            self._say(f"episode {job.episode} of {cells[job.cell].name}: given up after {ATTEMPTS} attempts")

    def _replace(self, event: Event) -> None:
        """A worker's process is gone: another takes its place, unless they all die."""
        self.workers -= 1
        self._busy.pop(event.worker, None)
        self._deaths += 1
        if self._deaths > ATTEMPTS:
            raise WorkersFailed(f"workers keep dying; the last one's last words:\n{event.exit_output}")
        reason = event.exit_output.splitlines()[0] if event.exit_output else "no last words"
        self._say(f"worker {event.worker} died ({reason}); another one takes its place")
        self._grow(self.workers + 1)

    def _retire(self, worker: int, answer: Mapping[str, Any]) -> None:
        """A worker that cannot go on, for a reason that another one at its policy node would share."""
        self.workers -= 1
        if not self.workers:
            raise WorkersFailed(answer["failed"], answer["status"])
        self._say(f"worker {worker} gives up, {self.workers} left: {answer['failed']}")


def decisive(hello: Mapping[str, Any]) -> dict[str, Any]:
    """What of a worker's answer to hello decides its episodes: versions, policies, and the robot but for where things
    lie."""
    robot = dict(hello["robot"])
    details = {key: value for key, value in robot.pop("details", {}).items() if not key.endswith(".source")}
    parts = {"details": details, "versions": hello.get("versions", {})}
    for name, policy in hello.get("policies", {}).items():
        about = {key: value for key, value in policy.items() if key != "details"}
        parts |= {f"policy {name}".strip(): about, f"policy {name}".strip() + " details": policy["details"]}
    return robot | {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
