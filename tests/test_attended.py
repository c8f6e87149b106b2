"""A person beside the robot: Enter begins an episode, s and f judge it, at a real terminal."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hardware import RecordingHardware
from person import Person

from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.robot import Outcome, RobotError
from tactus.hal.wrappers.attended import AttendedRobot

pytestmark = pytest.mark.realtime


def attended() -> AttendedRobot:
    robot = AttendedRobot(Governor(RecordingHardware(), GovernorConfig(guardian=False)))
    robot.connect()
    return robot


def test_reset_waits_for_enter_and_a_verdict_ends_the_episode() -> None:
    robot = attended()
    assert not robot.press("s"), "nothing to judge yet, so the key is somebody else's"
    said: list[str] = []
    robot.say = said.append
    threading.Timer(0.2, lambda: robot.press("\n")).start()
    robot.reset(3, 0)
    assert said == ["episode 3: put the scene in order, then press Enter"]
    assert robot.outcome() == Outcome(success=False, done=False, reward=0.0)
    assert not robot.press(" "), "the emergency stop's"
    assert robot.press("s")
    assert robot.outcome() == Outcome(success=True, done=True, reward=1.0)
    assert robot.press("f")
    assert robot.outcome() == Outcome(success=False, done=True, reward=0.0)
    robot.close()


def test_a_stop_while_it_waits_ends_the_waiting() -> None:
    robot = attended()
    threading.Timer(0.2, lambda: robot.stop("somebody shouted")).start()
    with pytest.raises(RobotError, match="somebody shouted"):
        robot.reset(0, 0)
    robot.close()


@pytest.mark.slow
def test_at_a_terminal(tmp_path: Path) -> None:
    robot = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=100000"]
    wire = [f"--connect=ipc://{tmp_path}/policy_node"]
    out = tmp_path / "out"
    with (
        Person("serve", "--policy.type=ticker", "--policy.width=3", *wire) as node,
        Person("run", *robot, *wire, "--attended=true", "--episodes=2", f"--output_dir={out}") as person,
    ):
        node.waits_for("policy node:")
        for episode, key in enumerate("sf"):
            person.waits_for(f"episode {episode}: put the scene in order, then press Enter")
            person.presses("\r")
            person.presses(key)
        assert person.status() == 0, person.said
    rows = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    assert [row["success"] for row in rows] == [True, False]
