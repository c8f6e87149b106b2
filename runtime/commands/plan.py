"""`tactus plan`: how many workers an iteration of rollouts should have here, why, and what more would take."""

from __future__ import annotations

import sys

from tactus.hal.spec import SpecError
from tactus.hal.wrappers.checked import make as make_robot
from tactus.runtime.commands.config import Plan
from tactus.runtime.evaluation.results import ResultsError
from tactus.runtime.lab.coordinator import WorkersFailed
from tactus.runtime.lab.worker import FAILED
from tactus.runtime.rl.costs import cores, free_memory, measure_costs
from tactus.runtime.rl.placement import plan

PLANNED, NO_ROOM, USAGE = 0, 1, 2


def main(config: Plan, arguments: list[str]) -> int:
    """Exit status 0 with a plan, 1 if not even one worker has room, 2 if robot and policy are nothing to plan for."""
    try:
        return _plan(config)
    except WorkersFailed as error:
        print(f"tactus plan: {error}", file=sys.stderr)
        return FAILED if error.status == FAILED else USAGE
    except (ValueError, ResultsError) as error:
        print(f"tactus plan: {error}", file=sys.stderr)
        return USAGE


def _plan(config: Plan) -> int:
    free = free_memory(config.policy)  # before anything is loaded
    _check_outcome(config)

    def say(line: str) -> None:
        print(f"{line} …", file=sys.stderr, flush=True)

    trained = (config.learner, config.minibatch)
    costs = measure_costs(config.robot, config.policy, *trained, config.rollouts, config.seed, config.allow, say)
    found = plan(costs, free, cores(), config.rollouts, config.learner)
    print("\n".join(found.lines()))
    return PLANNED if found.fits else NO_ROOM


def _check_outcome(config: Plan) -> None:
    """Raise SpecError for a robot whose rollouts nobody can count, before anything is started."""
    robot = make_robot(config.robot)
    try:
        if robot.wall_time or robot.outcome() is None:
            raise SpecError(
                f"robot: {robot.spec.name} is no simulation with an outcome; rollouts are played in virtual time, and "
                "learnt from by their success"
            )
    finally:
        robot.close()
