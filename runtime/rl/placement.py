"""How an iteration's rollouts are placed on a machine: how many workers, what limits them, and what more would take.

Pure: what was measured goes in, a plan comes out. There is one copy of the model for all workers, in the policy node;
a learner that trains beside it has a second one, or, where both do not fit, the node is in the learner's process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

SHARE = 0.8
"""Of the memory that is free, what may be taken: the rest is for the page cache and for what grows."""
IDLE = 0.05
"""Cores that a worker keeps busy, at least."""
UNNOTICED = 1e-6
"""Of a worker's time: what the policy node may compute for it without ever being a limit."""
FACTORS = (2, 4, 8)
"""How much faster the table's other machines are."""

Mode = Literal["at once", "waves", "sequential", "one process"]
"""All rollouts at once; some at a time; one at a time; one at a time with the node inside the learner's process."""


class Bytes(NamedTuple):
    """Memory, and that of the GPU."""

    ram: int
    gpu: int = 0

    def plus(self, other: Bytes, times: int = 1) -> Bytes:
        """This, and the other so many times."""
        return Bytes(self.ram + times * other.ram, self.gpu + times * other.gpu)

    def beyond(self, limit: Bytes) -> Bytes:
        """What of it is more than there is."""
        return Bytes(max(0, self.ram - limit.ram), max(0, self.gpu - limit.gpu))


@dataclass(frozen=True)
class Costs:
    """What was measured. An episode is one worker's, alone with the policy node.

    worker, node, learner: of their processes. The node's with a full batch's activations; the learner's with weights,
    gradients, AdamW's two moments and a minibatch's activations. both: node and learner in one process.
    episode_s: wall time. worker_cpu_s, node_cpu_s: CPU time of either for it. node_busy_s: of it, the node computes.
    facts: lines for the user, on what is in these numbers.
    """

    worker: Bytes
    node: Bytes
    learner: Bytes
    both: Bytes
    episode_s: float
    worker_cpu_s: float
    node_cpu_s: float
    node_busy_s: float
    facts: tuple[str, ...] = ()

    @property
    def cpu_s(self) -> float:
        """Core seconds of an episode."""
        return max(IDLE * self.episode_s, self.worker_cpu_s + self.node_cpu_s)

    @property
    def keeps_node_busy(self) -> bool:
        """Whether enough workers could be more than the node can answer."""
        return self.node_busy_s > UNNOTICED * self.episode_s


class Limit(NamedTuple):
    """workers: how many there may be. what: limits them. rate: rollouts a second that it allows. why: for the user."""

    workers: int
    what: str
    rate: float
    why: str


class Needs(NamedTuple):
    """What a rate takes. free: memory that must be free. nodes: copies of the policy, more than one where one node
    would not keep up."""

    rollouts_per_s: float
    workers: int
    cores: float
    free: Bytes
    nodes: int


@dataclass(frozen=True)
class Plan:
    """workers: at least 1. need: what all processes take. limits: the strictest first. missing: beyond what may be
    taken; with any, the plan cannot be carried out."""

    costs: Costs
    free: Bytes
    cores: int
    rollouts: int
    learner: bool
    mode: Mode
    workers: int
    need: Bytes
    limits: tuple[Limit, ...]
    missing: Bytes

    @property
    def fits(self) -> bool:
        """Whether there is memory for it."""
        return not any(self.missing)

    @property
    def waves(self) -> int:
        """How often the workers go through their turn in an iteration."""
        return math.ceil(self.rollouts / self.workers)

    @property
    def rollouts_per_s(self) -> float:
        """What workers, cores and the node should give together."""
        costs = self.costs
        rates = [self.workers / costs.episode_s, self.cores / costs.cpu_s]
        return min(rates + ([1 / costs.node_busy_s] if costs.keeps_node_busy else []))

    def needs(self, factor: float) -> Needs:
        """What so many times the rate would take."""
        costs, rate = self.costs, factor * self.rollouts_per_s
        workers = max(1, math.ceil(round(rate * costs.episode_s, 6)))
        nodes = max(1, math.ceil(round(rate * costs.node_busy_s, 6)))
        taken = Bytes(0).plus(costs.node, nodes).plus(costs.worker, workers)
        taken = taken.plus(costs.learner) if self.learner else taken
        free = Bytes(*(math.ceil(part / SHARE) for part in taken))
        return Needs(rate, workers, rate * costs.cpu_s, free, nodes)

    def lines(self) -> list[str]:
        """The plan, why it is that, and what more would take."""
        costs = self.costs
        told = [
            f"worker       {_size(costs.worker)}; {costs.worker_cpu_s / costs.episode_s:.2f} cores busy, "
            f"{costs.episode_s:.3g} s an episode",
            f"policy node  {_size(costs.node)}; {costs.node_cpu_s / costs.episode_s:.2f} cores busy for one worker",
            *([f"learner      {_size(costs.learner)}"] if self.learner else []),
            *(f"             {fact}" for fact in costs.facts),
            f"free         {_size(self.free)}, of which {SHARE:.0%} may be taken; {_count(self.cores, 'core')}",
            "",
        ]
        if not self.fits:
            who = "policy node and learner in one process, and one worker" if self.learner else "node and one worker"
            return [*told, f"plan: none. {who} take {_size(self.need)}: {_size(self.missing)} too much"]
        return [*told, f"plan: {self._placed()}", self._why(), "", *self._table()]

    def _placed(self) -> str:
        beside = " + learner" if self.learner else ""
        who = f"policy node{beside} + {_count(self.workers, 'worker')}"
        if self.mode == "one process":
            who = "policy node inside the learner's process, one copy of the model, + 1 worker"
        turns = "at once" if self.mode == "at once" else f"in {_count(self.waves, 'wave')}"
        if self.workers == 1 and self.rollouts > 1:
            turns = "one after the other"
        rate = self.rollouts_per_s
        return (
            f"{who}, {_count(self.rollouts, 'rollout')} {turns}; about {rate:.3g} rollouts/s, "
            f"{self.rollouts / rate:.3g} s an iteration; takes {_size(self.need)}"
        )

    def _why(self) -> str:
        first, *others = self.limits
        rest = ", ".join(f"{limit.what} {limit.workers}" for limit in others)
        return f"limited by {first.what}: {first.why}" + (f" (the others would allow: {rest})" if rest else "")

    def _table(self) -> list[str]:
        gpu = any(part.gpu for part in (self.costs.node, self.costs.worker, self.costs.learner))
        head = ["", "rollouts/s", "workers", "cores", "free memory", *(["free on the GPU"] if gpu else []), "nodes"]
        rows = [head]
        for factor in (1, *FACTORS):
            need = self.needs(factor)
            memory = [_gb(need.free.ram), *([_gb(need.free.gpu)] if gpu else [])]
            cells = [f"{need.rollouts_per_s:.3g}", str(need.workers), f"{need.cores:.1f}", *memory, str(need.nodes)]
            rows.append([f"{factor}×" if factor > 1 else "this", *cells])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def plan(costs: Costs, free: Bytes, cores: int, rollouts: int, learner: bool) -> Plan:
    """free: memory that can be taken now, and that of the GPU. cores: to run on. rollouts: of an iteration. learner:
    whether one trains beside the node."""
    usable = Bytes(int(SHARE * free.ram), int(SHARE * free.gpu))
    fixed = costs.node.plus(costs.learner) if learner else costs.node
    short = fixed.plus(costs.worker).beyond(usable)
    one_process = learner and any(short)
    if one_process:
        fixed = costs.both
    alone = 1 / costs.episode_s
    limits = [Limit(rollouts, "rollouts", rollouts * alone, f"there are {rollouts} to play"), _cores(costs, cores)]
    if costs.keeps_node_busy:
        limits.append(_node(costs))
    limits += _memory(costs, fixed, usable, short)
    limits.sort(key=lambda limit: (limit.workers, limit.rate))
    workers = max(1, limits[0].workers)
    need = fixed.plus(costs.worker, workers)
    mode: Mode = "waves"
    if one_process:
        mode = "one process"
    elif workers >= rollouts:
        mode = "at once"
    elif workers == 1:
        mode = "sequential"
    return Plan(costs, free, cores, rollouts, learner, mode, workers, need, tuple(limits), need.beyond(usable))


def _cores(costs: Costs, cores: int) -> Limit:
    """As many as there are cores for, to the nearest."""
    busy = costs.cpu_s / costs.episode_s
    fit = max(1, round(cores / busy))
    return Limit(
        fit,
        "cores",
        cores / costs.cpu_s,
        f"{cores}, and a worker and its share of the node keep {busy:.2f} busy: {fit}",
    )


def _node(costs: Costs) -> Limit:
    """As many as keep one policy node busy."""
    share = costs.node_busy_s / costs.episode_s
    fit = math.ceil(round(1 / share, 6))
    return Limit(
        fit, "policy node", 1 / costs.node_busy_s, f"computes {share:.1%} of a worker's time: {fit} keep it busy"
    )


def _memory(costs: Costs, fixed: Bytes, usable: Bytes, short: Bytes) -> list[Limit]:
    """As many as fit beside what is there once; one where it is short even of that. short: with a process each."""
    found = []
    names = ("memory", "GPU memory")
    for what, one, once, most, lacks in zip(names, costs.worker, fixed, usable, short, strict=True):
        if lacks:
            why = f"{_gb(most)} may be taken, a process each for node, learner and worker takes {_gb(most + lacks)}"
            found.append(Limit(1, what, 1 / costs.episode_s, why))
        elif one:
            fit = (most - once) // one
            why = f"{_gb(most)} may be taken, {_gb(once)} by what is there once, {_gb(one)} by a worker"
            found.append(Limit(fit, what, fit / costs.episode_s, why))
    return found


def _size(size: Bytes) -> str:
    return _gb(size.ram) + (f" and {_gb(size.gpu)} on the GPU" if size.gpu else "")


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count < 1e10 else f"{count / 1e9:.1f} GB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
