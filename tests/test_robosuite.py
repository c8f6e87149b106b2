"""robosuite's own tasks as Robots: the conformance suite, and robosuite's own environment to the bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest

import tactus.hal.backends  # noqa: F401 - registers the types
from tactus.hal.config import decode
from tactus.hal.robosuite.config import INSTRUCTIONS, Arm, Task
from tactus.hal.robosuite.robot import RobosuiteRobot
from tactus.hal.robot import Robot, RobotConfig
from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE
from tactus.runtime.commands.arguments import UsageError, read
from tactus.testing import RobotConformance

pytestmark = pytest.mark.slow
TASKS = get_args(Task)
FEW = ("Lift", "Panda", "UR5e")
"""Tasks and arms that are tried every time."""

AGENTVIEW = f"{IMAGES}agentview"


def made(**keys: Any) -> RobosuiteRobot:
    robot = decode(RobotConfig, {"type": "robosuite", **keys}).make()
    assert isinstance(robot, RobosuiteRobot)
    return robot


class TestRobosuite(RobotConformance):
    @pytest.fixture(
        params=[
            pytest.param(("Lift", ["agentview"]), id="one arm"),
            pytest.param(("TwoArmLift", []), id="two arms", marks=pytest.mark.long),
        ]
    )
    def robot(self, request: pytest.FixtureRequest) -> Iterator[Robot]:
        task, cameras = request.param
        with made(env_name=task, cameras=cameras, image_size=[32, 48]) as robot:
            yield robot


def played(robot: RobosuiteRobot, episode: int, ticks: int = 3, seed: int = 11) -> list[np.ndarray]:
    """What was observed, and MuJoCo's state at the end."""
    robot.reset(episode, seed)
    rng, seen = np.random.default_rng(episode), []
    for _ in range(ticks):
        robot.act(rng.uniform(-1, 1, robot.spec.action.shape).astype(np.float32))
        seen += [robot.observe().arrays[name].copy() for name in (STATE, ENVIRONMENT_STATE)]
        for name in (STATE, ENVIRONMENT_STATE):
            robot.spec.observations[name].check(name, robot.observe().arrays[name])
    return [*seen, robot._env.sim.get_state().flatten()]


@pytest.mark.parametrize(
    "task", [task if task in FEW else pytest.param(task, marks=pytest.mark.long) for task in TASKS]
)
def test_an_episode_is_the_same_in_any_order_of_any_robot(task: Task) -> None:
    with made(env_name=task, cameras=[]) as one, made(env_name=task, cameras=[]) as other:
        played(one, 0)
        for mine, theirs in zip(played(one, 2), played(other, 2), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert not np.array_equal(played(one, 2)[-1], played(one, 3)[-1])
        assert one.scene(0).task == INSTRUCTIONS[task]


@pytest.mark.parametrize(
    "arm", [arm if arm in FEW else pytest.param(arm, marks=pytest.mark.long) for arm in get_args(Arm)]
)
def test_every_arm_lifts_by_the_same_actions(arm: Arm) -> None:
    with made(arm=arm, cameras=[]) as robot:
        played(robot, 0)
        assert robot.spec.action.names == ("x", "y", "z", "rx", "ry", "rz", "gripper")
        assert all(robot.spec.observations[STATE].units) and robot.spec.name.endswith("Lift" if arm == "Panda" else arm)


def test_states_rewards_and_pictures_are_robosuites() -> None:
    import robosuite

    keys = {"has_renderer": False, "control_freq": 20, "camera_heights": 32, "camera_widths": 48}
    controller = robosuite.load_controller_config(default_controller="OSC_POSE")
    env = robosuite.make("Stack", robots="Panda", controller_configs=controller, ignore_done=True, **keys)
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 7)).astype(np.float32)
    with made(env_name="Stack", cameras=["agentview"], image_size=[32, 48]) as robot:
        robot.reset(1, 6)
        np.random.seed(7)
        env.reset()
        for action in actions:
            raw, reward, _, _ = env.step(action)
            robot.act(action)
            arrays, outcome = robot.observe().arrays, robot.outcome()
            np.testing.assert_array_equal(arrays[STATE], raw["robot0_proprio-state"])
            np.testing.assert_array_equal(arrays[ENVIRONMENT_STATE], raw["object-state"])
            assert outcome.reward == reward and outcome.success == env._check_success()
        theirs = env.sim.render(camera_name="agentview", height=32, width=48)[::-1]
        np.testing.assert_array_equal(arrays[AGENTVIEW], theirs)
    env.close()


def test_pictures_change_no_bit_and_are_drawn_when_read() -> None:
    with made(cameras=["agentview", "robot0_eye_in_hand"], image_size=[24, 24]) as robot:
        unread = played(robot, 0)
        assert robot.renders == 0
        robot.reset(0, 11)
        rng = np.random.default_rng(0)
        moments = []
        for _ in range(3):
            robot.act(rng.uniform(-1, 1, 7).astype(np.float32))
            moments.append(robot.observe())
            moments[-1].arrays[AGENTVIEW]
        np.testing.assert_array_equal(robot._env.sim.get_state().flatten(), unread[-1])
        assert robot.renders == 3
        late = moments[0].arrays[f"{IMAGES}robot0_eye_in_hand"]
        assert late.shape == (24, 24, 3) and late.std() > 0 and robot.renders == 4
        unread_one = robot.observe()
        robot.reset(1, 11)
        assert robot.observe().arrays[AGENTVIEW].std() > 0
        moments[0].arrays[AGENTVIEW]  # drawn in its time
    with pytest.raises(RuntimeError, match="not read in its own episode"):
        unread_one.arrays[f"{IMAGES}robot0_eye_in_hand"]


def test_nobody_elses_random_numbers_are_touched() -> None:
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    with made(cameras=[]) as robot:
        robot.reset(0, 5)
        assert (random.random(), np.random.random()) == expected


def lifting(robot: RobosuiteRobot) -> np.ndarray:
    """The action of a hand that goes to the cube, closes and goes up."""
    state = robot.observe().arrays[ENVIRONMENT_STATE]
    away = state[7:10]  # gripper_to_cube_pos
    action = np.zeros(7, np.float32)
    near = np.abs(away).max() < 0.012
    action[:3] = np.clip(-away * (8, 8, 8 if np.abs(away[:2]).max() < 0.02 else 0), -1, 1)
    action[6] = 1 if near or robot._steps > 60 else -1
    if robot._steps > 60:
        action[:3] = 0, 0, robot._steps > 75
    return action


def test_a_lifted_cube_is_a_success_and_ends_the_episode() -> None:
    with made(cameras=[], max_steps=150) as robot:
        robot.reset(0, 1000)
        while not robot.outcome().done:
            robot.act(lifting(robot))
        assert robot.outcome().success and robot.outcome().reward > 0 and robot._steps < 150
        robot.reset(1, 1000)
        assert not robot.outcome().success and not robot.outcome().done
    with made(cameras=[], max_steps=4) as robot:
        robot.reset(0, 0)
        for step in range(4):
            robot.act(np.zeros(7, np.float32))
            assert robot.outcome().done == (step == 3)
        assert not robot.outcome().success


@pytest.mark.parametrize(
    "key, words",
    [
        ("env_name=Lft", "Lift"),
        ("arm=Sawyer", "Panda"),
        ("cameras=[robot1_eye_in_hand]", "second arm; Lift has one"),
        ("cameras=wrist", "agentview"),
        ("max_steps=0", "max_steps"),
    ],
)
def test_what_is_not_there_is_said(key: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read("eval", ["--robot.type=robosuite", f"--robot.{key}"])
