"""An arm that moves under its Governor in a process of its own while something goes wrong, and what came of it.

`run_trial` is the test's end. The process is this file: a loop at 30 Hz, as a program of a user's would have it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.arm import ArmConfig, KochConfig, So100Config
from tactus.hal.robot import Command, RobotError
from tactus.hal.servo.calibration import Scale, load
from tactus.hal.spec import STATE

ROOT = Path(__file__).parents[1]
KINDS: Mapping[str, type[ArmConfig]] = {"so101": So100Config, "koch": KochConfig}
FPS, PERIODS = 30.0, 2
"""The Governor's velocity limit reckons with at most so many control periods since the command before."""
AMPLITUDE, PERIOD_S = 8.0, 3.0

WRONG: dict[str, Callable[[np.ndarray], Command]] = {
    "nan": lambda a: Command(np.full_like(a, np.nan)),
    "inf": lambda a: Command(np.where(np.arange(len(a)) % 2, np.inf, -np.inf).astype(a.dtype)),
    "huge": lambda a: Command(np.where(np.arange(len(a)) % 2, 3e38, -3e38).astype(a.dtype)),
    "far": lambda a: Command((a + 60).astype(a.dtype)),
    "old": lambda a: Command(a + np.float32(20), age_s=4.5),
    "starved": lambda a: Command(a, starved=True),
}
"""Actions that a policy should not give, by name, made of the one it should."""


# the process


def work(order: dict[str, Any]) -> int:
    """Move, and tell what happens as JSON lines. order: kind, port, calibration, config, seconds, wrong, wrong_s."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)  # as the commands do
    from tactus.hal.governor.config import GovernorConfig

    keys = {**order["config"]}
    governor = GovernorConfig(**keys.pop("governor", {}))
    config = KINDS[order["kind"]](port=order["port"], calibration=order["calibration"], governor=governor, **keys)
    robot = config.make()
    end = "finished"
    try:
        robot.connect()
        robot.reset(0, 0)
        start = robot.observe().arrays[STATE]
        tell("moving")
        _move(robot, start, order)
    except RobotError as error:
        end = f"RobotError: {error}"
    except KeyboardInterrupt:
        end = "KeyboardInterrupt"
    except ZeroDivisionError as error:
        end = f"ZeroDivisionError: {error}"
    finally:
        tell("end", end)
        try:
            robot.close()
        except RobotError as error:
            tell("close", str(error))
        for line in robot.events():
            tell("event", line)
        tell("closed")
    return 0


def _move(robot: Any, start: np.ndarray, order: dict[str, Any]) -> None:
    began_s = time.monotonic()
    wrong, wrong_s = order.get("wrong"), order.get("wrong_s", 1.0)
    until_s = (order["wrong_at_s"], order["wrong_at_s"] + wrong_s) if wrong else (np.inf, np.inf)
    told = False
    towards = np.where(start > (np.array(robot.spec.action.low) + robot.spec.action.high) / 2, -1, 1)
    tick = 0
    while (elapsed_s := time.monotonic() - began_s) < order["seconds"]:
        tick = max(tick, int(elapsed_s * FPS)) + 1  # never a burst to catch up
        wave = AMPLITUDE * (1 - np.cos(2 * np.pi * elapsed_s / PERIOD_S))
        action = (start + towards * wave).astype(start.dtype)
        command = Command(action)
        if until_s[0] <= elapsed_s < until_s[1]:
            if not told:
                tell("wrong")
                told = True
            if wrong == "raise":
                raise ZeroDivisionError("a bug in the loop")
            if wrong == "sleep":
                time.sleep(wrong_s)
            elif wrong != "stop":
                command = WRONG[wrong](action)
            else:
                robot.stop("the test")
        if tick % order.get("observe_every", 1) == 0:
            robot.observe()
        robot.follow(command)
        for line in robot.events():
            tell("event", line)
        time.sleep(max(0.0, began_s + tick / FPS - time.monotonic()))


def tell(what: str, text: str = "") -> None:
    print(json.dumps({"t": time.monotonic(), "what": what, "text": text}), flush=True)


# the test's end


@dataclass
class Trial:
    """What came of one. at_s: when it went wrong. lines: what the process told. writes: of the twin's log, since then
    and from the beginning of the motion. order: as the process had it."""

    order: dict[str, Any]
    at_s: float
    lines: list[dict[str, Any]]
    writes: list[dict[str, Any]]
    calibration: dict[str, dict[str, int]]
    status: int | None
    guardian: str = ""
    unheard: list[str] = field(default_factory=list)

    @property
    def told(self) -> list[str]:
        """What the user sees from the fault on: events, and the error that ends it."""
        texts = [
            line["text"]
            for line in self.lines
            if line["t"] > self.at_s - 0.005 and line["what"] in ("event", "end", "close")
        ]
        return [text for text in texts if text != "finished"]

    def goals(self) -> dict[int, np.ndarray]:
        """By id: [N, 2] of time and count, in order."""
        found: dict[int, list[tuple[float, int]]] = {}
        for write in self.writes:
            if write["register"] == "Goal_Position":
                found.setdefault(write["id"], []).append((write["t"], write["value"]))
        return {motor_id: np.array(rows) for motor_id, rows in found.items()}

    def longest_gap_ms(self) -> float:
        """Between goals on the bus around and after the fault, until the motion's end."""
        times = np.unique(np.concatenate([rows[:, 0] for rows in self.goals().values()]).round(3))
        times = times[times > self.at_s - 0.1]
        return float(np.diff(times).max() * 1e3) if len(times) > 1 else float("nan")

    def last_goal_ms(self) -> float:
        """When the last goal was written, after the fault."""
        return (max(rows[-1, 0] for rows in self.goals().values()) - self.at_s) * 1e3

    def off_ms(self) -> dict[int, float]:
        """By id: when it was first told to let go, after the fault."""
        found: dict[int, float] = {}
        for write in self.writes:
            if write["register"] == "Torque_Enable" and not write["value"] and write["t"] > self.at_s:
                found.setdefault(write["id"], (write["t"] - self.at_s) * 1e3)
        return found

    def unsafe(self) -> list[str]:
        """What of the log breaks the rules, in words: a goal outside calibration, or faster than the velocity limit.

        Within any time no goal is farther from another than the limit allows for that time and PERIODS periods (the
        log's clock is not the Governor's); and two goals in a row never farther than PERIODS periods allow.
        """
        config = KINDS[self.order["kind"]]()
        found = []
        by_id = {entry["id"]: (name, entry) for name, entry in self.calibration.items()}
        for motor_id, rows in self.goals().items():
            name, entry = by_id[motor_id]
            low, high = entry["range_min"], entry["range_max"]
            outside = rows[(rows[:, 1] < low) | (rows[:, 1] > high), 1]
            if len(outside):
                found.append(f"{name}: goals {outside[:5]} outside {low} to {high}")
            joint = config.joints[name]
            counts = joint.velocity * ((high - low) / 100 if joint.unit == "range_0_100" else 4095 / 360)
            slack = counts * PERIODS / FPS
            if (step := np.abs(np.diff(rows[:, 1])).max(initial=0)) > slack + 1:
                found.append(f"{name}: a step of {step:.0f} counts, allowed are {slack:.0f}")
            apart = np.abs(rows[:, None, 1] - rows[None, :, 1])
            allowed = counts * np.abs(rows[:, None, 0] - rows[None, :, 0]) + slack + 1
            if (apart > allowed).any():
                found.append(f"{name}: faster than {counts:.0f} counts per s")
        return found


def run_trial(
    twin: Any,
    arm: str,
    inject: Callable[[subprocess.Popen[str]], None] | None = None,
    seconds: float = 4.0,
    inject_at_s: float = 1.0,
    patience_s: float = 25.0,
    after_s: float = 0.2,
    **order: Any,
) -> Trial:
    """Move an arm of a RunningTwin for `seconds`, with `inject` called after inject_at_s; order: as `work` has it.

    after_s: how long to watch the twin after the process's end. Everything is mended afterwards.
    """
    about = twin.about["arms"][arm]
    order = {"kind": about["kind"], "port": about["port"], "calibration": about["calibration"], "config": {}, **order}
    order |= {"seconds": seconds, "wrong_at_s": inject_at_s}
    lines: list[dict[str, Any]] = []
    state = Path(twin.folder) / "state"
    log = state / "tactus" / "guardian.log"
    before = log.read_text() if log.exists() else ""
    written = len(twin.writes())
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(order)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(state), "PYTHONPATH": str(ROOT)},
    )
    reader = threading.Thread(target=_gather, args=(process, lines))
    reader.start()
    try:
        moving_s = _when(lines, "moving", process, patience_s)
        at_s = moving_s
        if inject is not None:
            time.sleep(max(0.0, moving_s + inject_at_s - time.monotonic()))
            at_s = time.monotonic()
            inject(process)
        status = process.wait(patience_s)
        reader.join()
        if inject is None and order.get("wrong"):
            at_s = _when(lines, "wrong", process, 0.0)
        time.sleep(after_s + 0.1)
        writes = [write for write in twin.writes()[written:] if write["arm"] == arm]
        guardian = log.read_text()[len(before) :] if log.exists() else ""
    finally:
        process.kill()
        process.wait()
        reader.join()
        twin.ask(do="clear")
        if not twin.arm(arm)["plugged"]:
            twin.ask(do="fault", kind="replug", arm=arm)
    calibration = json.loads(Path(order["calibration"]).read_text())
    return Trial(order, at_s, lines, writes, calibration, status, guardian)


def _gather(process: subprocess.Popen[str], lines: list[dict[str, Any]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(json.loads(line))


def _when(lines: list[dict[str, Any]], what: str, process: subprocess.Popen[str], patience_s: float) -> float:
    until_s = time.monotonic() + patience_s
    while True:
        for line in lines:
            if line["what"] == what:
                return line["t"]
        closed = process.poll() is not None and any(line["what"] == "closed" for line in lines)
        assert not closed and time.monotonic() < until_s, f"it never came to {what}: {lines}"
        time.sleep(0.005)


def scale_of(calibration: Path, kind: str) -> Scale:
    """Counts to units of a twin's arm."""
    config = KINDS[kind](port="none", calibration=str(calibration))
    motors = config.make_bus().motors
    return Scale.of(load(calibration, motors), motors, {name: j.unit for name, j in config.joints.items()})


if __name__ == "__main__":
    sys.exit(work(json.loads(sys.argv[1])))
