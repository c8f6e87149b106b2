"""What goes wrong with an arm, what its user sees, and what the arm does: a Markdown table, figures of two arms.

    python tests/bench/arm_faults.py [--arms=so101,koch] [--only=WORDS]

A process moves an emulated arm at 30 Hz behind its Governor (gentle sines on all joints, observing at every tick), and
after a second something goes wrong. What came of it is read from the twin's log of every register that was written:

    disturbed   the longest time between two goals on the bus, in ms, until control ended; 33 is undisturbed
    then        when control ended and when motors were told to let go, counted from the fault
    unsafe      commands outside the calibrated range, or faster than the velocity limit, that reached a servo

Everything is measured on the emulated bus of `tactus twin`, joints without gravity.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from faulty_arm import Trial, run_trial
from twins import RunningTwin, running_twin

KINDS = ("so101", "koch")
SEEN = 3
"""Output of a user's that a row shows."""
HOLD, PARK = {"on_stop": "hold"}, {"on_stop": "park", "park_pose": {"elbow_flex": 60}}


@dataclass(frozen=True)
class Case:
    """fault: a request to the twin, inject: what to do to the process; wrong: what the loop does by itself."""

    name: str
    fault: dict[str, Any] | None = None
    inject: Callable[[subprocess.Popen[str]], None] | None = None
    wrong: str | None = None
    order: dict[str, Any] = field(default_factory=dict)


def governor(**config: Any) -> dict[str, Any]:
    return {"config": {"governor": config}}


def sending(signum: int) -> Callable[[subprocess.Popen[str]], None]:
    return lambda process: process.send_signal(signum)


CASES = (
    Case("nothing", {"kind": "late", "delay_ms": 0, "count": 1}),
    Case("5 % of answers lost", {"kind": "lost", "probability": 0.05}),
    Case("5 % of answers 20 ms late", {"kind": "late", "probability": 0.05}),
    Case("one answer 80 ms late", {"kind": "stuck"}),
    Case("5 % of answers corrupt", {"kind": "corrupt", "probability": 0.05}),
    Case("5 % of answers truncated", {"kind": "truncated", "probability": 0.05}),
    Case("5 % of answers with noise", {"kind": "noise", "probability": 0.05}),
    Case("a motor silent for 0.3 s", {"kind": "dead", "motor": 3, "duration_s": 0.3}),
    Case("a motor dead", {"kind": "dead", "motor": 3}),
    Case("a motor dead, rarely observed", {"kind": "dead", "motor": 3}, order={"observe_every": 30}),
    Case("a motor in overload", {"kind": "overload", "motor": 2}),
    Case("the gripper in overload", {"kind": "overload", "motor": 6}),
    Case("a motor too hot", {"kind": "over_temperature", "motor": 2}),
    Case("too low a voltage", {"kind": "under_voltage", "motor": 2}),
    Case("brown-out", {"kind": "brown_out"}),
    Case("unplugged for 0.5 s", {"kind": "unplug", "duration_s": 0.5}),
    Case("unplugged for 2 s", {"kind": "unplug", "duration_s": 2.0}),
    Case(
        "unplugged, in again after 5 s",
        {"kind": "unplug", "duration_s": 5.0},
        order={"seconds": 9.0, "after_s": 3.0},
    ),
    Case("policy starves 1 s", wrong="starved"),
    Case("policy starves, on_starved: off", wrong="starved", order=governor(on_starved="off", starved_hold_s=0.5)),
    Case(
        "policy starves, on_starved: park",
        wrong="starved",
        order={"wrong_s": 3.0, **governor(on_starved="park", starved_hold_s=0.5, park_pose={"elbow_flex": 60})},
    ),
    Case("actions NaN for 1 s", wrong="nan"),
    Case("actions infinite for 1 s", wrong="inf"),
    Case("actions of ± 3e38 for 1 s", wrong="huge"),
    Case("actions 60 away for 1 s", wrong="far"),
    Case("actions 4.5 s old for 1 s", wrong="old"),
    Case("emergency stop", wrong="stop"),
    Case("SIGINT", inject=sending(signal.SIGINT)),
    Case("SIGTERM", inject=sending(signal.SIGTERM)),
    Case("SIGHUP", inject=sending(signal.SIGHUP)),
    Case("SIGTERM, on_stop: hold", inject=sending(signal.SIGTERM), order=governor(**HOLD)),
    Case("SIGTERM, on_stop: park", inject=sending(signal.SIGTERM), order=governor(**PARK)),
    Case("an exception in the loop", wrong="raise"),
    Case("SIGKILL", inject=sending(signal.SIGKILL), order={"after_s": 1.0}),
    Case(
        "SIGKILL without a guardian",
        inject=sending(signal.SIGKILL),
        order={"after_s": 2.0, **governor(guardian=False)},
    ),
    Case("the loop hangs for 1 s", wrong="sleep"),
    Case("the loop hangs for 8 s", wrong="sleep", order={"wrong_s": 8.0, "seconds": 12.0}),
)


def play(twin: RunningTwin, arm: str, case: Case) -> Trial:
    """One case on one arm."""
    inject = case.inject
    if case.fault is not None:
        inject = lambda process: twin.ask(do="fault", arm=arm, **case.fault)  # noqa: E731
    order = {"wrong": case.wrong, **case.order} if case.wrong else case.order
    trial = run_trial(twin, arm, inject, **order)
    twin.ask(do="fault", kind="brown_out", arm=arm, duration_s=0.0)  # Dynamixels keep errors until their power was off
    time.sleep(0.1)
    return trial


@dataclass(frozen=True)
class Row:
    """What came of a case on one arm. seen: lines of the user's. last_ms, off: of control that ended, else None."""

    seen: list[str]
    gap_ms: float
    last_ms: float | None
    off: list[float]
    unsafe: list[str]


def judge(trial: Trial, port: str) -> Row:
    """Whether control went on, and if not, what the arm did."""
    end_s = next(line["t"] for line in [*trial.lines, {"what": "end", "t": trial.at_s}] if line["what"] == "end")
    off = [*trial.off_ms().values()]
    finished = any(line["text"] == "finished" for line in trial.lines)
    goes_on = finished and (not off or min(off) / 1e3 + trial.at_s > end_s - 0.05)
    return Row(
        seen(trial, port),
        trial.longest_gap_ms(),
        None if goes_on else max(0.0, trial.last_goal_ms()),
        [] if goes_on else off,
        trial.unsafe(),
    )


def seen(trial: Trial, port: str) -> list[str]:
    """Events, else the error that ended it; then what the guardian says. At most SEEN lines."""
    events = [line for line in trial.told if not line.startswith("RobotError")] or trial.told
    guardian = ["guardian: " + line.split(" ", 2)[2] for line in trial.guardian.splitlines()]
    told = [line.replace(port, "PORT").replace("|", "/") for line in dict.fromkeys([*events, *guardian[1:]])]
    lines = [line for line in told if not any(other != line and other.startswith(line) for other in told)]
    if len(lines) > SEEN:
        lines[SEEN - 1 : -1] = [f"({len(lines) - SEEN + 1} more)"]
    return lines


def line(case: Case, rows: list[Row]) -> str:
    """A row of the table; figures of several arms side by side."""

    def figures(values: list[float]) -> str:
        return " / ".join(f"{value:.0f}" for value in values)

    if any(row.last_ms is None for row in rows):
        then = " / ".join("goes on" if row.last_ms is None else "ends" for row in rows)
        then = "goes on" if {*then.split(" / ")} == {"goes on"} else then
    else:
        then = f"last goal {figures([row.last_ms or 0.0 for row in rows])} ms, "
        counts = sorted({len(row.off) for row in rows})
        if counts == [0]:
            then += "torque stays on"
        else:
            then += f"torque off on {' / '.join(map(str, counts))} of 6 {figures([max(row.off) for row in rows])} ms"
    unsafe = "; ".join(text for row in rows for text in row.unsafe) or "none"
    words = "<br>".join(rows[0].seen) or "–"
    return f"| {case.name} | {words} | {figures([row.gap_ms for row in rows])} | {then} | {unsafe} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--arms", default=",".join(KINDS))
    parser.add_argument("--only", default="", help="cases whose name holds this")
    given = parser.parse_args()
    kinds = given.arms.split(",")
    arms = [f"--arms.{kind}.kind={kind}" for kind in kinds]
    print(f"| fault | what the user sees ({kinds[0]}) | disturbed, ms | then, after the fault | unsafe writes |")
    print("|---|---|---|---|---|")
    unsafe = 0
    with tempfile.TemporaryDirectory() as folder, running_twin(Path(folder), "--world=kinematic", *arms) as twin:
        for case in CASES:
            if given.only in case.name:
                rows = [judge(play(twin, kind, case), twin.port(kind)) for kind in kinds]
                unsafe += sum(len(row.unsafe) for row in rows)
                print(line(case, rows), flush=True)
    sys.exit(unsafe > 0)


if __name__ == "__main__":
    main()
