"""Every Robot runs the conformance suite; then what is particular to each. LIBERO has files of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tactus.hal.arm import So100Config
from tactus.hal.gym import GymConfig
from tactus.hal.push import PushConfig
from tactus.hal.rig import RigConfig
from tactus.hal.rig.robot import Rig
from tactus.hal.robot import Robot, RobotConfig, RobotError
from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE, SpecError
from tactus.hal.synthetic import SyntheticConfig
from tactus.testing import RobotConformance

pytestmark = pytest.mark.realtime


class TestSynthetic(RobotConformance):
    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        with SyntheticConfig(cameras=1, image_size=(12, 16)).make() as robot:
            yield robot


class TestPushT(RobotConformance):
    @pytest.fixture(params=["state", "pixels", "pixels_agent_pos", "environment_state_agent_pos"])
    def robot(self, request: pytest.FixtureRequest) -> Iterator[Robot]:
        with GymConfig(kwargs={"obs_type": request.param}).make() as robot:
            yield robot


class TestPush(RobotConformance):
    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        with PushConfig().make() as robot:
            yield robot


class TestRig(RobotConformance):
    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        parts: dict[str, RobotConfig] = {
            "left": SyntheticConfig(width=3, cameras=1, image_size=(8, 8)),
            "right": SyntheticConfig(width=2, cameras=2, image_size=(8, 8)),
        }
        with RigConfig(parts=parts).make() as robot:
            yield robot


def test_pusht_has_lerobots_names() -> None:
    def names(obs_type: str) -> set[str]:
        robot = GymConfig(kwargs={"obs_type": obs_type}).make()
        robot.close()
        return set(robot.spec.observations)

    assert names("pixels_agent_pos") == {"observation.image", STATE}
    assert names("pixels") == {"observation.image"}
    assert names("environment_state_agent_pos") == {ENVIRONMENT_STATE, STATE}


def test_gym_seeds_are_those_of_lerobots_evaluation() -> None:
    import gymnasium

    reference = gymnasium.make("gym_pusht/PushT-v0", obs_type="state")
    expected, _ = reference.reset(seed=1003)
    with GymConfig(kwargs={"obs_type": "state"}).make() as robot:
        robot.reset(3, seed=1000)
        np.testing.assert_array_equal(robot.observe().arrays[STATE], expected)
    reference.close()


def test_gym_episode_ends_at_its_limit() -> None:
    with GymConfig(kwargs={"obs_type": "state"}).make() as robot:
        robot.reset(0, seed=0)
        steps = 0
        while not robot.outcome().done:
            robot.act(np.array([256.0, 256.0], np.float32))
            steps += 1
        assert steps == 300 and not robot.outcome().success


@pytest.mark.parametrize(
    "config, words",
    [
        (GymConfig(env_id="gym_pusht/PushT-v9"), r"cannot be made: Environment version .*v0` \].$"),
        (GymConfig(env_id="PickCube-v1"), "doesn't exist. What a package registers is MODULE:PickCube-v1, as in "),
        (GymConfig(env_id="no_such_module:PickCube-v1"), "No module named 'no_such_module'"),
        (GymConfig(env_id="no_such_package/Env-v0"), "No module named 'no_such_package'"),
        (GymConfig(env_id="CartPole-v1"), "takes Discrete"),
    ],
)
def test_gym_says_what_it_cannot_make(config: GymConfig, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        config.make()


def test_a_gym_env_without_a_rate_needs_one() -> None:
    with GymConfig(env_id="Pendulum-v1", action_mode="delta").make() as robot:
        assert robot.spec.fps == 30 and set(robot.spec.observations) == {STATE}
    with GymConfig(env_id="Pendulum-v1", fps=20).make() as robot:
        assert robot.spec.fps == 20


def test_a_rig_joins_and_splits_in_order() -> None:
    left, right = SyntheticConfig(width=2, cameras=1).make(), SyntheticConfig(width=3, cameras=1).make()
    rig = Rig({"left": left, "right": right})
    assert rig.spec.action.names == ("left.joint_0", "left.joint_1", "right.joint_0", "right.joint_1", "right.joint_2")
    assert rig.spec.action.mode == ("delta", "binary", "delta", "delta", "binary")
    assert {name for name in rig.spec.observations if name.startswith(IMAGES)} == {
        f"{IMAGES}left_camera_0",
        f"{IMAGES}right_camera_0",
    }
    rig.reset(0, 1)
    before = rig.observe().arrays[STATE].copy()
    rig.act(np.arange(5, dtype=np.float32))
    np.testing.assert_array_equal(rig.observe().arrays[STATE], before + np.arange(5, dtype=np.float32))
    np.testing.assert_array_equal(right.observe().arrays[STATE], before[2:] + np.array([2, 3, 4], np.float32))


def test_rig_parts_must_share_a_rate() -> None:
    parts: dict[str, Robot] = {"a": SyntheticConfig(fps=30).make(), "b": SyntheticConfig(fps=20).make()}
    with pytest.raises(SpecError, match=r"act at one rate; found \{'a': 30(\.0)?, 'b': 20"):
        Rig(parts)
    with pytest.raises(SpecError, match="name at least one robot"):
        RigConfig().make()


def test_what_is_wrong_with_a_part_is_said_with_its_name() -> None:
    with pytest.raises(RobotError, match=r"left: robot.port: not given"):
        RigConfig(parts={"left": So100Config(), "right": SyntheticConfig()}).make()


def test_a_rig_that_cannot_connect_lets_go_of_what_it_has() -> None:
    class Broken(type(SyntheticConfig().make())):
        closed = False

        def connect(self) -> None:
            raise OSError("no such port")

    class Closing(type(SyntheticConfig().make())):
        closed = False

        def close(self) -> None:
            self.closed = True

    good, bad = Closing(SyntheticConfig()), Broken(SyntheticConfig())
    with pytest.raises(OSError, match="no such port"):
        Rig({"good": good, "bad": bad}).connect()
    assert good.closed
