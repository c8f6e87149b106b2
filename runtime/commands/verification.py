"""What `distill` and `distill verify` share: observations, trials, the verdict on the terminal, bars of progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tactus.hal.spec import SpecError
from tactus.hal.wrappers.checked import make as make_robot
from tactus.policies.policy import Policy, PolicyConfig
from tactus.runtime.commands.arguments import is_given
from tactus.runtime.commands.config import Distill, DistillVerify
from tactus.runtime.commands.report_writer import DISTILLATION_REPORT, load_writer
from tactus.runtime.evaluation.results import make_folder, write_whole

if TYPE_CHECKING:
    from tactus.runtime.distillation.observations import Observations
    from tactus.runtime.distillation.student import Bars
    from tactus.runtime.distillation.verification import Trials, Verification

PASSED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
MARKS = {True: "passed", False: "FAILED", None: "unknown"}


def check_kind(policy: PolicyConfig) -> None:
    """Raise SpecError for a policy that is no checkpoint with a number of denoising steps."""
    kind = type(policy)
    if not {"path", "num_steps"} <= set(kind.__dataclass_fields__):
        name = kind.get_choice_name(kind)
        raise SpecError(f"policy: {name} is no flow policy's checkpoint; accepted: lerobot, flow: --policy.path=DIR")


def at(policy: PolicyConfig, path: Path | str) -> PolicyConfig:
    """The policy with another checkpoint, which takes as many steps as it states."""
    check_kind(policy)
    return replace(policy, path=str(path), num_steps=None)  # type: ignore[call-arg]


def check_robot(config: Distill | DistillVerify, arguments: Sequence[str]) -> None:
    """Raise SpecError for a robot that would not be used."""
    if config.observations is not None and not config.trials and is_given(arguments, "robot"):
        raise SpecError("robot: not used, since observations are given; --trials=N plays episodes on it")


def check_trials(config: Distill | DistillVerify, teacher: Policy) -> None:
    """Raise SpecError for a robot that the teacher could not be tried on, before a student is trained for that."""
    from tactus.runtime.distillation.rollouts import check

    if config.trials:
        with make_robot(config.robot) as robot:
            check(robot, teacher, config.allow)


def observations_of(
    config: Distill | DistillVerify, teacher: Policy, bar: Bars, kept: Path | None = None
) -> Observations:
    """kept: the file where those of rollouts are, or go to."""
    from tactus.runtime.distillation.observations import from_recording, from_rollouts, load, save
    from tactus.runtime.distillation.rollouts import check

    most, share = config.max_observations, config.held_out
    if config.observations is not None:
        return from_recording(Path(config.observations), teacher.spec, most, share, config.allow)
    if kept is not None and kept.is_file():
        return load(kept)
    with make_robot(config.robot) as robot:
        check(robot, teacher, config.allow)
        played = bar("the teacher's episodes", config.rollouts)
        found = from_rollouts(robot, teacher, config.rollouts, most, share, config.trial_seed, lambda _: played(1))
    if kept is not None:
        save(found, kept)
    return found


def trials_of(config: Distill | DistillVerify, teacher: Policy, student: Policy, bar: Bars) -> Trials | None:
    """None if no episodes are asked for."""
    from tactus.runtime.distillation.rollouts import check
    from tactus.runtime.distillation.verification import try_both

    if not config.trials:
        return None
    first = config.rollouts if config.first_trial is None else config.first_trial
    with make_robot(config.robot) as robot:
        check(robot, teacher, config.allow)
        played = bar("episodes of both", config.trials)
        episodes = range(first, first + config.trials)
        return try_both(robot, teacher, student, episodes, config.trial_seed, lambda _: played(1))


def tell(done: Verification, folder: Path) -> int:
    """Writes verify.json and the report, prints the verdict; the exit status."""
    make_folder(folder)
    write_whole(folder / "verify.json", json.dumps(done.to_dict(), indent=1))
    report = load_writer(DISTILLATION_REPORT)(folder, done)
    width = max(len(check.name) for check in done.checks)
    for check in done.checks:
        print(f"{MARKS[check.passed]:7}  {check.name:{width}}  {check.found} (accepted: {check.accepted})")
    print(f"report: {report}\n{'passed' if done.passed else 'FAILED'}: {done.reason}")
    return PASSED if done.passed else FAILED


def told(command: str, work: Callable[[], int]) -> int:
    """The work's exit status; what is wrong is said in a sentence."""
    from tactus.runtime.evaluation.results import ResultsError

    try:
        return work()
    except (ResultsError, ValueError) as error:
        print(f"tactus {command}: {error}", file=sys.stderr)
        return USAGE
    except ModuleNotFoundError as error:
        print(f"tactus {command}: {error}", file=sys.stderr)
        return FAILED


@contextmanager
def bars() -> Iterator[Bars]:
    """Bars on stderr, one below the other, with the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:

        def bar(title: str, total: int) -> Callable[[int], object]:
            task = progress.add_task(title, total=total)
            return lambda more: progress.advance(task, more)

        yield bar
