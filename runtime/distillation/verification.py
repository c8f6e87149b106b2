"""A student held to its teacher: measures, checks, and success side by side where there is a robot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tactus.hal.robot import Robot
from tactus.hal.spec import Observation, SpecError
from tactus.policies.distillation.measures import Measures, measure
from tactus.policies.distillation.verdict import Check, checks, verdict
from tactus.policies.policy import Policy
from tactus.runtime.distillation.rollouts import play
from tactus.runtime.distillation.student import Bars
from tactus.runtime.evaluation.evaluate import order
from tactus.runtime.lab.measures import paired
from tactus.runtime.statistics import wilson

WORSE = -0.08
"""Where the interval of the difference in success may reach down to."""


@dataclass
class Trials:
    """Success in the same episodes, seeds and noises. low, high: Tango's 95 % interval of the difference."""

    robot: str
    episodes: list[int]
    teacher: list[bool]
    student: list[bool]
    difference: float
    low: float
    high: float

    def rate(self, who: Sequence[bool]) -> tuple[float, float, float]:
        """Success and its Wilson interval."""
        return sum(who) / len(who), *wilson(sum(who), len(who))


@dataclass
class Verification:
    """passed, reason: the verdict. distillation: what the student's distillation.json says, {} without."""

    teacher: str
    student: str
    source: str
    passed: bool
    reason: str
    checks: list[Check]
    measures: Measures
    trials: Trials | None
    distillation: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the loss of every step."""
        kept = {key: value for key, value in self.distillation.items() if key != "losses"}
        return asdict(self) | {"distillation": kept}


def check_shapes(teacher: Policy, student: Policy) -> None:
    """Raise SpecError unless both are flow policies of one shape."""
    for role, policy in (("teacher", teacher), ("student", student)):
        if policy.flow is None:
            raise SpecError(
                f"{role}: {policy.spec.name} is no flow policy that can be seen into; accepted: SmolVLA, PI0, PI05, or "
                "a flow policy of Tactus, not compiled"
            )
    ours, theirs = student.flow, teacher.flow
    assert ours is not None and theirs is not None
    for what in ("horizon", "width", "actions"):
        if getattr(ours, what) != getattr(theirs, what):
            raise SpecError(
                f"student: {what} {getattr(ours, what)}, the teacher's is {getattr(theirs, what)}: not its student"
            )
    if student.spec.inputs != teacher.spec.inputs:
        raise SpecError(
            f"student: reads {', '.join(student.spec.inputs)}; the teacher reads {', '.join(teacher.spec.inputs)}"
        )


def verify(
    teacher: Policy,
    student: Policy,
    held_out: Sequence[Observation],
    source: str,
    distillation: dict[str, Any] | None,
    trials: Trials | None,
    seed: int,
    bar: Bars,
) -> Verification:
    """held_out: observations that the student has not learnt from. Raises SpecError for two that do not fit."""
    check_shapes(teacher, student)
    assert teacher.flow is not None and student.flow is not None
    measures = measure(teacher.flow, student.flow, held_out, seed, bar("measuring", len(held_out)))
    kept = distillation or {}
    found = checks(measures, kept.get("facts"))
    if trials is not None:
        found.append(_success(trials))
    passed, reason = verdict(found)
    return Verification(teacher.spec.name, student.spec.name, source, passed, reason, found, measures, trials, kept)


def try_both(
    robot: Robot,
    teacher: Policy,
    student: Policy,
    episodes: Sequence[int],
    seed: int,
    progress: Callable[[int], object] = lambda played: None,
) -> Trials:
    """The same episodes with either, the student's right after the teacher's."""
    done: dict[int, tuple[bool, bool]] = {}
    for episode in order(robot, max(episodes) + 1):
        if episode in episodes:
            done[episode] = play(robot, teacher, episode, seed), play(robot, student, episode, seed)
            progress(len(done))
    both = [done[episode] for episode in episodes]
    theirs, ours = [pair[0] for pair in both], [pair[1] for pair in both]
    apart = paired(dict(enumerate(ours)), dict(enumerate(theirs)))
    assert apart is not None, "there are episodes"
    return Trials(robot.spec.name, [*episodes], theirs, ours, apart.value, apart.low, apart.high)


def _success(trials: Trials) -> Check:
    rates = [f"{sum(who)} of {len(who)}" for who in (trials.student, trials.teacher)]
    worse, as_good = trials.high < 0, trials.low > WORSE
    return Check(
        "success",
        False if worse else True if as_good else None,
        f"{rates[0]}, the teacher {rates[1]}; difference {100 * trials.difference:+.1f} points, 95 % "
        f"{100 * trials.low:+.1f} … {100 * trials.high:+.1f}"
        + ("" if worse or as_good else ": more episodes are needed to tell"),
        f"no worse: an interval that holds 0 and stays above {100 * WORSE:g} points",
    )
