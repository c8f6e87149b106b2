"""A person takes over in real time: keys at a terminal, a leader that is moved, one whose motors follow."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from doubles import eventually
from person import Person
from processes import serving
from test_teleop import NAMES, UNITS, angle, hold, leader_keys, module_twin, robot_keys, twin, writes
from twins import RunningTwin

from tactus.hal.spec import Feature
from tactus.policies.scripted.replay import read_actions, write_actions

__all__ = ["module_twin", "twin"]
pytestmark = [pytest.mark.slow, pytest.mark.realtime]

FPS = 30
VELOCITY = 180
"""deg/s, the arm's own limit."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A policy node that turns the shoulder to and fro by 10 degrees, and so on."""
    file = tmp_path_factory.mktemp("policy") / "wave.npz"
    wave = [np.float32(10 * math.sin(i / 15)) * (np.arange(6) == 0).astype(np.float32) for i in range(3000)]
    write_actions(file, wave, Feature((6,), "float32", UNITS, NAMES))
    keys = ["--policy.type=replay", f"--policy.path={file}"]
    with serving(file.with_suffix(".log"), *keys) as (_, endpoint):
        yield endpoint


def run(policy: str, twin: RunningTwin, folder: Path, *keys: str) -> list[str]:
    words = ["run", *robot_keys(twin), f"--connect={policy}", "--episodes=1", "--attended=true", "--intervene"]
    return [*words, f"--output_dir={folder}", "--record_actions", *keys]


def row(folder: Path) -> dict:
    return json.loads((folder / "episodes.jsonl").read_text())


def begins(person: Person) -> None:
    person.waits_for("put the scene in order, then press Enter")
    person.presses("\n")


def test_keys_take_over_move_the_arm_and_hand_back(policy: str, twin: RunningTwin, tmp_path: Path) -> None:
    with Person(*run(policy, twin, tmp_path, "--teleop.step=4")) as person:
        person.waits_for("i or Tab: take over, hand back (q/a shoulder_pan.pos")
        begins(person)
        time.sleep(1.0)
        person.presses("i")
        person.waits_for("a person takes over")
        person.presses("qqqqqqqq")
        eventually(lambda: angle(twin, "shoulder_pan") > 20)
        still = angle(twin, "shoulder_pan")
        person.presses("\t")
        person.waits_for("the policy drives again")
        eventually(lambda: abs(angle(twin, "shoulder_pan")) < 11)
        person.presses("s")
        person.waits_for("episode   0  success")
        person.waits_for("1 interventions, 1 an episode")
        assert person.status() == 0
    found = row(tmp_path)
    [[first, end]] = found["interventions"]
    assert found["starved_ticks"] == 0 and first >= 20 and still > 20
    actions, _ = read_actions(tmp_path / "actions" / "episode_00000.npz")
    steps = np.abs(np.diff(actions[:, 0]))
    around = [*range(first - 2, first + 3), *range(end - 2, min(end + 3, len(steps)))]
    assert steps[around].max() <= 2 * VELOCITY / FPS * 1.01, "a late tick may go on by two ticks' worth, and no more"


def test_a_leader_that_is_moved_takes_over_and_is_met(policy: str, twin: RunningTwin, tmp_path: Path) -> None:
    with Person(*run(policy, twin, tmp_path, *leader_keys(twin), "--meet_s=0.5")) as person:
        begins(person)
        time.sleep(1.0)
        assert "a person takes over" not in person.said, "a leader that lies there does not"
        hold(twin, {"shoulder_pan": 0.7, "elbow_flex": 0.3})
        person.waits_for("a person takes over")
        eventually(lambda: abs(angle(twin, "shoulder_pan") - math.degrees(0.7)) < 2)
        person.presses("i")
        person.waits_for("the policy drives again")
        eventually(lambda: abs(angle(twin, "shoulder_pan")) < 11)
        time.sleep(0.5)
        person.presses("f")
        assert person.status() == 0
    assert len(row(tmp_path)["interventions"]) == 1, "it was left where it was"
    assert {w["value"] for w in writes(twin, "leader", "Torque_Enable")} == {0}


def test_a_leader_with_motors_follows_and_goes_limp_in_a_hand(policy: str, twin: RunningTwin, tmp_path: Path) -> None:
    hold(twin, {})

    def torque() -> set[bool]:
        return {*twin.arm("leader")["torque_on"].values()}

    keys = [*leader_keys(twin), "--teleop.follows=true"]
    with Person(*run(policy, twin, tmp_path, *keys)) as person:
        begins(person)
        eventually(lambda: torque() == {True}, 20)
        goals = len(writes(twin, "leader", "Goal_Position"))
        time.sleep(1.0)
        assert len(writes(twin, "leader", "Goal_Position")) > goals + 6 * 15, "it follows"
        assert abs(angle(twin, "shoulder_pan", "leader") - angle(twin, "shoulder_pan")) < 6
        person.presses("i")
        person.waits_for("a person takes over")
        eventually(lambda: torque() == {False})
        hold(twin, {"shoulder_pan": 0.6})
        eventually(lambda: abs(angle(twin, "shoulder_pan") - math.degrees(0.6)) < 2)
        hold(twin, {})
        person.presses("i")
        person.waits_for("the policy drives again")
        eventually(lambda: torque() == {True})
        eventually(lambda: abs(angle(twin, "shoulder_pan", "leader")) < 12)
        person.presses("f")
        assert person.status() == 0
    found = row(tmp_path)
    assert len(found["interventions"]) == 1 and found["starved_ticks"] == 0
    assert torque() == {False}
