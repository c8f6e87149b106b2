"""What goes wrong with an arm, what its user sees, and what the arm does: one row a fault, as a Markdown table.

    python tests/bench/arm_faults.py [--arms=so101,koch] [--only=WORDS]

A process moves an emulated arm at 30 Hz behind its Governor (gentle sines on all joints, observing at every tick), and
after a second something goes wrong. What came of it is read from the twin's log of every register that was written:

    disturbed   the longest time between two goals on the bus; 33 ms is undisturbed
    then        when torque went off, counted from the fault, or what else the arm did
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
"""Lines of a user's that a row shows."""
HOLD, PARK = {"on_stop": "hold"}, {"on_stop": "park", "park_pose": {"elbow_flex": 60}}


@dataclass(frozen=True)
class Case:
    """fault: a request to the twin, inject: what to do to the process; wrong: what the loop does by itself."""

    name: str
    fault: dict[str, Any] | None = None
    inject: Callable[[subprocess.Popen[str]], None] | None = None
    wrong: str | None = None
    order: dict[str, Any] = field(default_factory=dict)
    later: tuple[float, dict[str, Any]] | None = None


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
    Case("too low a voltage", {"kind": "under_voltage"}),
    Case("brown-out", {"kind": "brown_out"}),
    Case("unplugged for 0.5 s", {"kind": "unplug", "duration_s": 0.5}),
    Case("unplugged for 2 s", {"kind": "unplug", "duration_s": 2.0}),
    Case("unplugged for good, in again after 5 s", {"kind": "unplug", "duration_s": 5.0}, order={"after_s": 4.0}),
    Case("policy starves 1 s", wrong="starved"),
    Case("policy starves, on_starved: off", wrong="starved", order=governor(on_starved="off", starved_hold_s=0.5)),
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


def seen(trial: Trial, port: str) -> str:
    """The first lines the user sees, numbers and all."""
    lines = list(dict.fromkeys([*trial.told, *(line.split(" ", 2)[2] for line in trial.guardian.splitlines())]))
    shown = [line.replace(port, "PORT").replace("|", "/") for line in lines]
    more = f" … and {len(shown) - SEEN} more" if len(shown) > SEEN else ""
    return "<br>".join(shown[:SEEN]) + more or "–"


def then(trial: Trial) -> str:
    """What the arm did after the fault, in words."""
    if trial.order["seconds"] < 1 or not any(line["what"] == "moving" for line in trial.lines):
        return "it never moved"
    finished = any(line["text"] == "finished" for line in trial.lines)
    off = trial.off_ms()
    if finished:
        return "went on"
    if not off:
        return f"last goal after {trial.last_goal_ms():.0f} ms; torque stays on"
    return f"torque off on {len(off)} of 6 after {min(off.values()):.0f} to {max(off.values()):.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--arms", default=",".join(KINDS))
    parser.add_argument("--only", default="", help="cases whose name holds this")
    given = parser.parse_args()
    print("| arm | fault | what the user sees | disturbed, ms | then | unsafe |\n|---|---|---|---|---|---|")
    unsafe = 0
    for kind in given.arms.split(","):
        arms = f"--arms.arm.kind={kind}"
        with tempfile.TemporaryDirectory() as folder, running_twin(Path(folder), "--world=kinematic", arms) as twin:
            for case in CASES:
                if given.only not in case.name:
                    continue
                trial = play(twin, "arm", case)
                found = trial.unsafe()
                unsafe += len(found)
                words = seen(trial, twin.port("arm"))
                rules = "; ".join(found) or "none"
                gap = trial.longest_gap_ms()
                print(f"| {kind} | {case.name} | {words} | {gap:.0f} | {then(trial)} | {rules} |", flush=True)
    sys.exit(unsafe > 0)


if __name__ == "__main__":
    main()
