"""PushT, gym_aloha and Meta-World as Robots: the conformance suite, and LeRobot's own environments to the bit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np
import pytest

import tactus.hal.backends  # noqa: F401
from tactus.hal.config import ConfigError
from tactus.hal.gym.config import ALOHA_TASKS, AlohaConfig, GymConfig, MetaWorldConfig, PushTConfig, PushTObserves
from tactus.hal.gym.metaworld_tasks import GROUPS, INSTRUCTIONS
from tactus.hal.robot import Robot, RobotConfig
from tactus.hal.spec import IMAGES, STATE, Observation, SpecError
from tactus.runtime.commands.arguments import parse
from tactus.testing import RobotConformance

pytestmark = pytest.mark.slow

READY = np.array([0, -0.96, 1.16, 0, -0.3, 0, 0.5] * 2)
"""gym_aloha's first pose, as an action."""


class TestPushT(RobotConformance):
    @pytest.fixture(params=get_args(PushTObserves))
    def robot(self, request: pytest.FixtureRequest) -> Iterator[Robot]:
        with PushTConfig(obs_type=request.param).make() as robot:
            yield robot


@pytest.mark.slow
class TestAloha(RobotConformance):
    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        with AlohaConfig().make() as robot:
            yield robot


@pytest.mark.slow
class TestMetaWorld(RobotConformance):
    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        with MetaWorldConfig().make() as robot:
            yield robot


class TestManiSkill(RobotConformance):
    """Where it is installed, and a Vulkan driver with it."""

    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        pytest.importorskip("mani_skill")
        with GymConfig(env_id="mani_skill.envs:PickCube-v1", success_key="success").make() as robot:
            assert robot.spec.fps == 20 and robot.spec.observations[STATE].shape == (42,)
            yield robot


def assert_as_lerobot(robot: Robot, config: Any, actions: np.ndarray, seed: int = 3) -> tuple[bool, float]:
    """Play one episode in LeRobot's env and in ours, and only then look at our pictures, the last one first."""
    from lerobot.envs import make_env
    from lerobot.envs.utils import preprocess_observation

    [tasks] = make_env(config).values()
    [env] = tasks.values()
    seen: list[tuple[Observation, dict[str, Any]]] = []
    successes, rewards = False, 0.0
    try:
        raw, _ = env.reset(seed=[seed])
        robot.reset(1, seed - 1)
        seen.append((robot.observe(), preprocess_observation(raw)))
        for action in actions:
            raw, reward, terminated, truncated, info = env.step(action[None])
            robot.act(action)
            outcome = robot.outcome()
            assert outcome is not None and outcome.reward == reward[0]
            assert outcome.done == (terminated[0] or truncated[0])
            if outcome.done:  # the vector env has begun another episode
                assert outcome.success == info["final_info"]["is_success"][0]
                break
            assert not outcome.success
            seen.append((robot.observe(), preprocess_observation(raw)))
            successes, rewards = outcome.success, rewards + outcome.reward
    finally:
        env.close()
    for observation, expected in reversed(seen):
        assert set(observation.arrays) == set(expected)
        for name, value in expected.items():
            found = observation.arrays[name]
            if found.ndim == 3:
                found = found.transpose(2, 0, 1) / np.float32(255)
            np.testing.assert_array_equal(found.astype(np.float32), value[0].numpy(), err_msg=name)
    return successes, rewards


@pytest.mark.parametrize("obs_type", ["pixels_agent_pos", "environment_state_agent_pos"])
def test_pusht_is_lerobots(obs_type: str) -> None:
    from lerobot.envs.configs import PushtEnv

    with PushTConfig(obs_type=obs_type).make() as robot:
        robot.reset(1, 2)
        block = robot._env.unwrapped.block.position  # pyright: ignore[reportAttributeAccessIssue]
        actions = np.float32(block) + np.random.default_rng(0).uniform(-40, 40, (25, 2)).astype(np.float32)
        assert_as_lerobot(robot, PushtEnv(obs_type=obs_type), actions)


@pytest.mark.slow
@pytest.mark.parametrize("task", ALOHA_TASKS)
def test_aloha_is_lerobots(task: str) -> None:
    from lerobot.envs.configs import AlohaEnv

    actions = (READY + np.random.default_rng(0).uniform(-0.4, 0.4, (4, 14))).astype(np.float32)
    with AlohaConfig(task=task).make() as robot:
        assert_as_lerobot(robot, AlohaEnv(task=task), actions)
        assert robot.renders == 5


@pytest.mark.slow
@pytest.mark.parametrize("task", ["push-v3", "door-open-v3"])
def test_metaworld_is_lerobots(task: str) -> None:
    from lerobot.envs.configs import MetaworldEnv

    actions = np.random.default_rng(0).uniform(-1, 1, (4, 4)).astype(np.float32)
    with MetaWorldConfig(task=task).make() as robot:
        robot.reset(8, 8)  # an episode that leaves the scene otherwise than it found it
        for action in np.random.default_rng(1).uniform(-1, 1, (40, 4)).astype(np.float32):
            robot.act(action)
        assert_as_lerobot(robot, MetaworldEnv(task=task), actions)
        assert robot.renders == 5


@pytest.mark.slow
def test_metaworld_succeeds_when_lerobot_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expert of a task, to its end: same states, same rewards, success at the same step."""
    from lerobot.envs.metaworld import MetaworldEnv

    env = MetaworldEnv("drawer-close-v3", obs_type="pixels_agent_pos")
    env._ensure_env()
    inner: Any = env._env
    monkeypatch.setattr(inner, "render", lambda: np.zeros((480, 480, 3), np.uint8))
    monkeypatch.setattr(env, "reset", lambda: None)  # else a success starts the next episode before it is reported
    whole: list[np.ndarray] = []
    step = inner.step
    monkeypatch.setattr(inner, "step", lambda action: whole.append((result := step(action))[0]) or result)
    with MetaWorldConfig(task="drawer-close-v3").make() as robot:
        for seed in (5, 6):
            MetaworldEnv.reset(env, seed=seed)
            robot.reset(seed - 5, 5)
            whole.append(inner._get_obs())
            done = False
            while not done:
                action = np.clip(env.expert_policy.get_action(whole[-1]), -1, 1).astype(np.float32)
                raw, reward, done, truncated, info = env.step(action)
                robot.act(action)
                outcome = robot.outcome()
                assert outcome is not None and not truncated
                assert (outcome.reward, outcome.done, outcome.success) == (reward, done, info["is_success"])
                np.testing.assert_array_equal(robot.observe().arrays[STATE], raw["agent_pos"])
            assert info["is_success"]
        assert robot.renders == 0
    env.close()


@pytest.mark.slow
def test_aloha_succeeds_at_its_highest_reward() -> None:
    with AlohaConfig(max_steps=3).make() as robot:
        rewards = iter([3, 4, 0])
        robot._task.get_reward = lambda physics: next(rewards)  # pyright: ignore[reportAttributeAccessIssue]
        robot.reset(0, 0)
        found = []
        for _ in range(3):
            robot.act(READY.astype(np.float32))
            outcome = robot.outcome()
            assert outcome is not None
            found.append((outcome.reward, outcome.success, outcome.done))
        assert found == [(3.0, False, False), (4.0, True, True), (0.0, True, True)]


@pytest.mark.slow
def test_metaworld_leaves_nothing_of_an_episode_in_the_next() -> None:
    """All the physics there is, even what no camera resolves; push-v3 is the task that leaks in Meta-World itself."""

    def begin(robot: Any) -> list[np.ndarray]:
        robot.reset(0, 5)
        data = robot._env._env.data
        return [getattr(data, name).copy() for name in ("qpos", "qvel", "mocap_pos", "site_xpos", "geom_xpos")]

    with MetaWorldConfig(max_steps=80).make() as robot:
        first = begin(robot)
        for episode in (1, 2):
            robot.reset(episode, 5)
            rng = np.random.default_rng(episode)
            while not (outcome := robot.outcome()) or not outcome.done:
                robot.act(rng.uniform(-1, 1, 4).astype(np.float32))
        for before, after in zip(first, begin(robot), strict=True):
            np.testing.assert_array_equal(before, after)
    with MetaWorldConfig().make() as robot:
        for before, after in zip(first, begin(robot), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_two_simulators_in_a_process_do_not_mix_their_pictures() -> None:
    """Every package here believes that its own GL context is the current one."""

    def pictures(robot: Robot) -> list[Callable[[], np.ndarray]]:
        name = next(name for name, feature in robot.spec.observations.items() if feature.is_image)
        robot.reset(0, 0)
        first = robot.observe()
        robot.act(np.zeros(robot.spec.action.shape, np.float32))
        return [lambda seen=seen: seen.arrays[name] for seen in (first, robot.observe())]

    def alone(config: RobotConfig) -> list[np.ndarray]:
        with config.make() as robot:
            return [picture() for picture in pictures(robot)]

    configs: list[RobotConfig] = [AlohaConfig(), MetaWorldConfig()]
    expected = [alone(config) for config in configs]
    robots = [config.make() for config in configs]
    try:
        waiting = [pictures(robot) for robot in robots]
        for turn in (0, 1):
            for i in range(len(robots)):
                np.testing.assert_array_equal(waiting[i][turn](), expected[i][turn])
    finally:
        for robot in robots:
            robot.close()


def test_metaworld_counts_episodes_by_task() -> None:
    robot = MetaWorldConfig(task="reach-v3, hard,metaworld-push-v3").make()
    tasks = ["reach-v3", *GROUPS["hard"], "push-v3"]
    assert [robot.scene(i).labels["task"] for i in range(9)] == [*tasks, tasks[0]]
    assert robot.scene(1).task == "Pick up a nut and place it onto a peg"
    assert robot.spec.name == "metaworld"


def test_metaworld_has_lerobots_tasks() -> None:
    from lerobot.envs import metaworld

    assert metaworld.TASK_DESCRIPTIONS == INSTRUCTIONS
    assert {group: list(tasks) for group, tasks in GROUPS.items()} == metaworld.DIFFICULTY_TO_TASKS


def test_specs_say_what_numbers_mean() -> None:
    aloha, metaworld, pusht = AlohaConfig().make(), MetaWorldConfig().make(), PushTConfig().make()
    assert (aloha.spec.fps, metaworld.spec.fps, pusht.spec.fps) == (50, 80, 10)
    assert set(aloha.spec.observations) == {f"{IMAGES}top", STATE}
    assert set(aloha.spec.action.mode) == set(pusht.spec.action.mode) == {"absolute"}
    assert metaworld.spec.action.mode == ("delta", "delta", "delta", "absolute")
    assert (aloha.spec.action.low <= READY).all() and (aloha.spec.action.high >= READY).all()
    assert set(AlohaConfig(obs_type="pixels").make().spec.observations) == {f"{IMAGES}top"}


@pytest.mark.parametrize("kind", ["pusht", "aloha", "metaworld"])
def test_one_line_is_a_config(kind: str) -> None:
    robot = parse("eval", [f"--robot.type={kind}"]).robot.make()
    assert robot.spec.name.startswith(kind)
    robot.close()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: PushTConfig(obs_type="keypoints"), "obs_type: found 'keypoints'; accepted: pixels_agent_pos, p"),
        (lambda: PushTConfig(max_steps=0), "max_steps: found 0"),
        (lambda: AlohaConfig(task="AlohaFold-v0"), "task: found 'AlohaFold-v0'; accepted: AlohaInsertion-v0, AlohaTr"),
        (lambda: AlohaConfig(obs_type="state"), "obs_type: found 'state'; accepted: pixels_agent_pos, pixels"),
        (lambda: MetaWorldConfig(task="easy,fly-v3"), r"found 'fly-v3'; accepted: a group \(easy, .*assembly-v3, b"),
        (lambda: MetaWorldConfig(task=""), "task: found ''"),
        (lambda: MetaWorldConfig(max_steps=501), "max_steps: found 501; must be at most 500"),
    ],
)  # fmt: skip
def test_a_config_says_what_it_would_accept(make: Callable[[], RobotConfig], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize(
    "config, missing", [(PushTConfig(), "gym_pusht"), (AlohaConfig(), "gym_aloha"), (MetaWorldConfig(), "metaworld")]
)
def test_a_missing_package_says_what_to_install(
    config: RobotConfig, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SpecError, match=rf"needs the package {missing}.*pip install 'tactus\[gym\]'"):
        config.make()
