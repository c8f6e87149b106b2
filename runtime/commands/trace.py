"""`tactus trace FILE`: a policy's inference, stage by stage, on a robot's observations or recorded ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tactus.hal.spec import RobotSpec, SpecError
from tactus.hal.wrappers.checked import make as make_robot
from tactus.policies.policy import Policy
from tactus.policies.tracing.trace_file import Recorder, TraceError
from tactus.runtime.commands.arguments import is_given
from tactus.runtime.commands.config import Trace
from tactus.runtime.diagnosis.sources import recorded
from tactus.runtime.diagnosis.tracing import trace_recorded, trace_robot
from tactus.runtime.policy_node.inference import make
from tactus.runtime.wire.handshake import mismatches

DONE, UNUSABLE = 0, 2


def main(config: Trace, arguments: list[str]) -> int:
    """Writes FILE, and says what is in it. Exit status 2 for what cannot be traced."""
    try:
        if config.observations is not None and is_given(arguments, "robot"):
            raise SpecError("observations: a robot and recorded observations are given; leave out one of them")
        print(_words(_record(config), config.file))
    except (SpecError, TraceError) as error:
        print(f"tactus trace: {error}", file=sys.stderr)
        return UNUSABLE
    except OSError as error:
        print(f"tactus trace: cannot write {config.file}: {error.strerror}", file=sys.stderr)
        return UNUSABLE
    return DONE


def _record(config: Trace) -> Recorder:
    policy = make(config.policy)
    recorder = Recorder("tactus", policy.spec.name)
    if config.observations is not None:
        seen = recorded(Path(config.observations), policy.spec, config.episode, config.stride)
        chunks = trace_recorded(recorder, policy, islice(seen, config.samples), config.seed, config.layers)
        if not sum(1 for _ in chunks):
            raise SpecError(f"observations: {config.observations} holds none")
    else:
        with make_robot(config.robot) as robot:
            recorder.trace.robot = robot.spec.name
            _check(robot.spec, policy, config.allow)
            if robot.outcome() is None:
                raise SpecError(
                    f"robot: {robot.spec.name} would move without its safety layer's timing: record it with "
                    "--record_flight, and trace the record with --observations=FOLDER"
                )
            trace_robot(recorder, policy, robot, config.samples, config.episode, config.seed, config.layers)
    recorder.save(config.file)
    return recorder


def _check(robot: RobotSpec, policy: Policy, allow: Sequence[str]) -> None:
    if reasons := mismatches(robot, policy.spec, allow):
        raise SpecError("this policy cannot drive this robot:\n" + "\n".join(f"  - {reason}" for reason in reasons))


def _words(recorder: Recorder, file: str) -> str:
    trace = recorder.trace
    stages = sum(len(sample.stages) for sample in trace.samples)
    size = Path(file).stat().st_size
    return (
        f"{file}: {trace.policy}; {len(trace.samples)} observations, {stages // len(trace.samples)} stages each, "
        f"{size / 1e6:.1f} MB\ncompare it with another: tactus compare {file} OTHER"
    )
