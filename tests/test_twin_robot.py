"""The twin's table as a robot in virtual time: what `launch/so100.sh --emulated` drives, without the wire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tactus.hal.arm import So100Config
from tactus.hal.config import ConfigError
from tactus.hal.robot import Robot, RobotError
from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE
from tactus.hal.twin.arm import EmulatedArm
from tactus.hal.twin.config import ArmConfig, TwinRobotConfig
from tactus.hal.twin.faults import Faults
from tactus.hal.twin.servo import no_log
from tactus.policies.policy import Request, Session
from tactus.policies.scripted.config import PickerConfig
from tactus.testing import RobotConformance, some_action

pytestmark = pytest.mark.slow

TOP, WRIST = f"{IMAGES}top", f"{IMAGES}wrist"


class TestTwin(RobotConformance):
    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        with TwinRobotConfig(image_size=(24, 32)).make() as robot:
            yield robot

    def test_act_returns_what_was_sent(self, robot: Robot) -> None:
        """No faster than the arm may move, as the Governor has it."""
        robot.reset(0, seed=7)
        start = robot.observe().arrays[STATE]
        sent = robot.act(some_action(robot.spec.action, np.random.default_rng(1)))
        robot.spec.action.check("sent", sent)
        assert np.abs(sent - start).max() < 200 / 30 + 0.2
        near = sent + np.float32(1)
        np.testing.assert_array_equal(robot.act(near), near)


@pytest.fixture
def robot() -> Iterator[Robot]:
    with TwinRobotConfig(image_size=(96, 128)).make() as robot:
        yield robot


def test_it_has_the_arms_names_units_and_bounds(robot: Robot, tmp_path: Path) -> None:
    arm = EmulatedArm("arm", ArmConfig(), robot._world.arms["arm"], Faults(), no_log)  # type: ignore[attr-defined]
    calibration = arm.write_calibration(tmp_path)
    real = So100Config(port="/dev/null", calibration=str(calibration)).make().spec
    assert robot.spec.action == real.action
    assert robot.spec.observations[STATE] == real.observations[STATE]


def play(robot: Robot, ticks: int, camera: str = "", **keys: object) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The picker at work, for at most so many ticks: the states, the first action of each plan, the pictures."""
    policy = PickerConfig(**keys).make()  # type: ignore[arg-type]
    policy.reset(Session("a", 0, ""))
    states, actions, pictures = [], [], []
    for tick in range(ticks):
        seen = replace(robot.observe(), tick=tick)
        [chunk] = policy.infer([Request("a", seen)])
        states.append(seen.arrays[STATE])
        actions.append(chunk.actions[0])
        if camera:
            pictures.append(seen.arrays[camera].copy())
        robot.act(chunk.actions[0])
        outcome = robot.outcome()
        if outcome is not None and outcome.done:
            break
    return np.array(states), np.array(actions), pictures


def test_the_picker_puts_the_cube_into_the_bin(robot: Robot) -> None:
    for episode in range(4):
        robot.reset(episode, seed=3)
        play(robot, 600)
        outcome = robot.outcome()
        assert outcome is not None
        assert outcome.success


def test_the_picker_finds_the_cube_in_its_pictures() -> None:
    with TwinRobotConfig().make() as robot:
        robot.reset(0, seed=3)
        play(robot, 600, vision=True)
        outcome = robot.outcome()
        assert outcome is not None
        assert outcome.success


def test_the_cube_lies_where_the_twin_lays_it(robot: Robot) -> None:
    robot.reset(5, seed=2)
    first = robot.observe().arrays[ENVIRONMENT_STATE]
    robot.reset(6, seed=2)
    assert not np.array_equal(robot.observe().arrays[ENVIRONMENT_STATE][:2], first[:2])
    world = robot._world  # type: ignore[attr-defined]
    world.handle({"do": "reset", "episode": 5, "seed": 2})
    np.testing.assert_allclose(world.state()["cube"][:2], first[:2], atol=1e-4)


def test_its_pictures_show_the_cube_and_are_older_than_its_state(robot: Robot) -> None:
    robot.reset(0, seed=3)
    for camera in (TOP, WRIST):
        picture = robot.observe().arrays[camera]
        assert picture.std() > 20
    red, green, _ = robot.observe().arrays[TOP].astype(int).transpose(2, 0, 1)
    assert 6 <= (red - green > 80).sum() <= 80
    _, _, pictures = play(robot, 60, TOP)
    assert np.abs(pictures[-1].astype(int) - pictures[0]).max() > 60, "the arm has moved"
    ages = set()
    for episode in range(12):
        robot.reset(episode, seed=3)
        ages |= {*robot._ages.values()}  # type: ignore[attr-defined]
    assert len(ages) > 4, "each camera and episode has its own moment"


def test_a_plan_that_follows_the_arm_waits_for_it(robot: Robot) -> None:
    """Frames of an arm at half the speed: by time the plan runs away from it, by the arm it does not."""
    robot.reset(0, seed=3)
    states, actions, _ = play(robot, 600)
    robot.reset(0, seed=3)
    poses = robot.observe().arrays[ENVIRONMENT_STATE].copy()
    seen = np.repeat(states[:80], 2, axis=0)  # up to where it is above the cube
    found = {}
    for pace in ("time", "arm"):
        policy = PickerConfig(pace=pace, commit=0).make()  # type: ignore[arg-type]
        policy.reset(Session("a", 0, ""))
        rows = []
        for tick, state in enumerate(seen):
            observation = replace(robot.observe(), arrays={STATE: state, ENVIRONMENT_STATE: poses}, tick=tick)
            [chunk] = policy.infer([Request("a", observation)])
            rows.append(chunk.actions[0])
        found[pace] = np.abs(np.array(rows) - np.repeat(actions[:80], 2, axis=0)).max(axis=1)
    assert found["arm"].max() < 8
    assert found["time"].max() > 15


def test_an_episode_ends_at_its_limit() -> None:
    with TwinRobotConfig(cameras=[], max_steps=3).make() as robot:
        for _ in range(2):
            robot.reset(0, seed=0)
            stay = robot.observe().arrays[STATE]
            done = []
            for _ in range(3):
                robot.act(stay)
                outcome = robot.outcome()
                assert outcome is not None
                done.append(outcome.done)
            assert done == [False, False, True]


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"image_size.*found"):
        TwinRobotConfig(image_size=(8, 128))
    with pytest.raises(ConfigError, match=r"start_pose.*accepted.*gripper"):
        TwinRobotConfig(start_pose={"shoulder_pan": 0.0}).make()
    with pytest.raises(RobotError, match=r"no camera 'front'; there are"):
        TwinRobotConfig(cameras=["front"]).make()
    with TwinRobotConfig(cameras=[]).make() as robot, pytest.raises(RobotError, match=r"found.*nan.*accepted"):
        robot.reset(0, 0)
        robot.act(np.full(6, np.nan, np.float32))
