"""Which worker plays which episode next. Pure: no processes, no clocks.

Changing the group (a simulator's task) costs a worker seconds, so it stays with its group while there is work, and
takes the group with the most work per worker when there is none. Within a group the jobs run in one fixed order.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable
from typing import NamedTuple

ATTEMPTS = 3
"""How often a job may cost its worker before it is given up."""


class Job(NamedTuple):
    """An episode of a cell. cell: its index."""

    cell: int
    episode: int


class Scheduler:
    """Every job is handed out until it is done; a lost one goes back to the front of its group."""

    def __init__(self, jobs: Iterable[tuple[Hashable, Job]]) -> None:
        self._open: dict[Hashable, deque[Job]] = defaultdict(deque)
        self._group: dict[Job, Hashable] = {}
        for group, job in jobs:
            if job in self._group:
                raise ValueError(f"{job} is there twice")
            self._open[group].append(job)
            self._group[job] = group
        self._at: dict[int, Hashable] = {}
        self._playing: dict[int, Job] = {}
        self._losses: dict[Job, int] = defaultdict(int)
        self.left = len(self._group)
        """Jobs neither done nor given up."""
        self.given_up: list[Job] = []

    def next(self, worker: int) -> Job | None:
        """The job that `worker` should play now; None if all the rest is being played by others."""
        group = self._at.get(worker)
        if group is None or not self._open[group]:
            company = [at for other, at in self._at.items() if other != worker]
            group = max(
                (g for g, jobs in self._open.items() if jobs),
                key=lambda g: len(self._open[g]) / (1 + company.count(g)),
                default=None,
            )
        if group is None:
            return None
        self._at[worker] = group
        self._playing[worker] = self._open[group].popleft()
        return self._playing[worker]

    def done(self, worker: int) -> Job:
        """What `worker` was playing is finished."""
        self.left -= 1
        return self._playing.pop(worker)

    def lost(self, worker: int, gone: bool) -> Job | None:
        """What `worker` was playing came to nothing and has to be played again. gone: and so is the worker.

        Returns the job if it has now been lost ATTEMPTS times: it is given up.
        """
        if gone:
            self._at.pop(worker, None)
        job = self._playing.pop(worker, None)
        if job is None:
            return None
        self._losses[job] += 1
        if self._losses[job] >= ATTEMPTS:
            self.left -= 1
            self.given_up.append(job)
            return job
        self._open[self._group[job]].appendleft(job)
        return None
