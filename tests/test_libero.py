"""LIBERO behind the Robot interface against LIBERO's own environment: every state and every pixel, bit for bit."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeLibero, new_libero
from doubles import HORIZON

from tactus.hal.config import ConfigError
from tactus.hal.libero import LiberoConfig, kept_models
from tactus.hal.libero import assets as libero_assets
from tactus.hal.libero.kept_models import KeptModels
from tactus.hal.libero.robot import NO_OP, LiberoRobot, lerobot_state
from tactus.hal.robot import Robot
from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE, Chunk, PolicySpec, SpecError
from tactus.policies.policy import Policy
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link
from tactus.testing import RobotConformance

pytestmark = pytest.mark.slow

IMAGE, WRIST = f"{IMAGES}image", f"{IMAGES}image2"


class Reference:
    """LIBERO's own OffScreenRenderEnv, cameras on, reset as LeRobot's LiberoEnv resets it.

    Close it before the robot under test renders: robosuite draws into, and frees objects of, whichever GL
    context happens to be current.
    """

    def __init__(self, robot: LiberoRobot) -> None:
        from libero.libero.envs import OffScreenRenderEnv

        self._relative = robot._config.control == "relative"
        self._states = robot.suite.init_states(robot._tasks[0])
        path = robot.suite.bddl_file(robot._tasks[0])
        self.env = OffScreenRenderEnv(bddl_file_name=path, camera_heights=256, camera_widths=256, control_freq=20)
        self.env.reset()

    def reset(self, init_state: int, seed: int) -> dict[str, np.ndarray]:
        self.env.seed(seed)
        self.env.reset()
        raw = self.env.set_init_state(self._states[init_state])
        for _ in range(10):
            raw, _, _, _ = self.env.step(NO_OP)
        for arm in self.env.robots:
            arm.controller.use_delta = self._relative
        return raw

    def step(self, action: np.ndarray) -> dict[str, np.ndarray]:
        raw, _, _, _ = self.env.step(action)
        return raw

    def close(self) -> None:
        self.env.close()
        gc.collect()


def push(raw: dict[str, np.ndarray], moved: str, rng: np.random.Generator, absolute: bool = False) -> np.ndarray:
    """Random motion that runs into the object and pushes it about."""
    action = rng.uniform(-1, 1, 7).astype(np.float32)
    action[:3] = np.clip(10 * (raw[f"{moved}_pos"] - raw["robot0_eef_pos"]), -1, 1) + 0.3 * action[:3]
    if absolute:
        action[:3] = raw["robot0_eef_pos"] + 0.2 * action[:3]
        action[3:6] = lerobot_state(raw)[3:6] + 0.3 * action[3:6]
    return action


def rollout(robot: LiberoRobot, init_states: list[int], seed: int, ticks: int) -> list[list[tuple[Any, ...]]]:
    """LIBERO's own episodes: per tick its observation, its simulator state and the action then taken."""
    reference, rng = Reference(robot), np.random.default_rng(0)
    moved = robot.suite.interest(robot._tasks[0])[0]
    episodes = []
    for episode, init_state in enumerate(init_states):
        raw, ticks_seen = reference.reset(init_state, seed + episode), []
        for _ in range(ticks):
            action = push(raw, moved, rng, robot._config.control == "absolute")
            ticks_seen.append((raw, reference.env.get_sim_state(), action))
            raw = reference.step(action)
        episodes.append(ticks_seen)
    reference.close()
    return episodes


@pytest.mark.slow
@pytest.mark.parametrize(
    "suite, task, control, steps",
    [
        ("libero_object", 3, "relative", "compiled"),
        pytest.param("libero_object", 3, "absolute", "compiled", marks=pytest.mark.long),
        pytest.param("libero_spatial", 4, "relative", "compiled", marks=pytest.mark.long),
        pytest.param("libero_spatial", 9, "absolute", "compiled", marks=pytest.mark.long),
        pytest.param("libero_goal", 8, "relative", "compiled", marks=pytest.mark.long),
        pytest.param("libero_object", 3, "relative", "exact", marks=pytest.mark.long),
    ],
)
def test_every_bit_is_liberos_own(
    libero: MakeLibero, suite: str, task: int, control: str, steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two episodes with contacts: states at every tick, pictures of both cameras at every tenth.

    LIBERO plays them one after the other, ours in reverse: an episode does not depend on what came before it.
    In task 4 of libero_spatial the bowl is in a drawer, whose opening LIBERO draws anew at every reset; in task 8 of
    libero_goal stove, cabinet and rack stand where they are drawn.
    """
    robot = libero(suite, tasks=[task], init_states=[7, 2], control=control)
    from tactus.hal.libero import control_step

    assert control_step.can_be_compiled()
    calls, substeps = [], control_step._physics_steps
    monkeypatch.setattr(control_step, "_physics_steps", lambda *values: (calls.append(values[0]), substeps(*values)))
    monkeypatch.setattr(control_step, "can_be_compiled", lambda: steps == "compiled")
    moved = robot.suite.interest(task)[0]
    for episode, expected in reversed([*enumerate(rollout(robot, [7, 2], seed=30, ticks=60))]):
        robot.reset(episode, seed=30)
        for tick, (raw, sim_state, action) in enumerate(expected):
            np.testing.assert_array_equal(robot.sim_state, sim_state)
            arrays = robot.observe().arrays
            np.testing.assert_array_equal(arrays[STATE], lerobot_state(raw))
            pose = np.concatenate([raw[f"{moved}_pos"], raw[f"{moved}_quat"]])
            np.testing.assert_array_equal(arrays[ENVIRONMENT_STATE][:7], pose)
            if tick % 10 == 0:
                np.testing.assert_array_equal(arrays[IMAGE], raw["agentview_image"][::-1, ::-1])
                np.testing.assert_array_equal(arrays[WRIST], raw["robot0_eye_in_hand_image"][::-1, ::-1])
            robot.act(action)
        if suite == "libero_object":
            way = np.abs(expected[0][0][f"{moved}_pos"] - expected[-1][0][f"{moved}_pos"]).max()
            assert way > 0.01, "the object was pushed"
    assert robot.renders == 2 * 6 * 2
    # the first step after LIBERO has set a state is robosuite's: its controller has not looked yet
    assert sum(calls) == (2 * (10 - 1 + 60) * 25 if steps == "compiled" else 0)


def played(robot: LiberoRobot, episode: int, ticks: int = 12) -> list[np.ndarray]:
    """States of every tick, and both pictures of the first and last."""
    robot.reset(episode, seed=7)
    rng, seen = np.random.default_rng(episode), []
    for tick in range(ticks):
        arrays = robot.observe().arrays
        seen += [robot.sim_state, arrays[STATE], arrays[ENVIRONMENT_STATE]]
        if tick in (0, ticks - 1):
            seen += [arrays[IMAGE], arrays[WRIST]]
        robot.act((rng.uniform(-1, 1, 7) - [0, 0, 0.4, 0, 0, 0, 0]).clip(-1, 1).astype(np.float32))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    "suite, kept",
    [
        ("libero_object", 2),
        pytest.param("libero_goal", 10, marks=pytest.mark.long),
        *(
            pytest.param(suite, kept, marks=pytest.mark.long)
            for suite, kept in [
                ("libero_object", 10),
                ("libero_spatial", 10),
                ("libero_spatial", 2),
                ("libero_goal", 2),
            ]
        ),
    ],
)
def test_tasks_in_any_order_are_as_in_a_robot_of_their_own(libero: MakeLibero, suite: str, kept: int) -> None:
    """Compiled models are used again: stove, cabinet and rack stand, and sites show, as if newly loaded."""
    options = {"tasks": [0, 1, 5, 7], "init_states": [3, 11], "image_size": (64, 64)}
    order = [2, 0, 6, 1, 3, 2, 7, 5, 4, 0]
    expected = {}
    for episode in sorted(set(order)):
        alone = libero(suite, **options)
        expected[episode] = played(alone, episode)
        alone.close()
    robot = libero(suite, kept_tasks=kept, **options)
    for episode in order:
        for found, wanted in zip(played(robot, episode), expected[episode], strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert len(robot._kept) == min(kept, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "suite, task", [("libero_object", 0), ("libero_spatial", 4), ("libero_goal", 7), ("libero_goal", 9)]
)
def test_an_episode_changes_nothing_of_a_model_but_what_is_restored(
    libero: MakeLibero, suite: str, task: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mujoco
    from libero.libero.envs import TASK_MAPPING

    from tactus.hal.libero.pristine import CHANGED

    robot = libero(suite, tasks=[task], image_size=(64, 64))
    draws: list[bool] = []
    for problem in set(TASK_MAPPING.values()):
        monkeypatch.setattr(problem, "_load_model", _watched(problem._load_model, draws))
    played(robot, 3)
    assert draws == [False], "loading a model draws no random numbers, and happens once"
    model = robot._env.sim.model._model
    fresh: Any = mujoco.MjModel.from_xml_string(robot._env.model.get_xml())
    arrays = [name for name in dir(model) if isinstance(getattr(model, name), np.ndarray)]
    assert len(arrays) > 300
    differ = {name for name in arrays if not np.array_equal(getattr(model, name), getattr(fresh, name))}
    assert differ <= set(CHANGED) and (suite == "libero_object" or "body_pos" in differ)


def _watched(load: Any, draws: list[bool]) -> Any:
    def watched(env: Any) -> None:
        before = np.random.get_state()[2], np.random.get_state()[1].tobytes()
        load(env)
        draws.append(before != (np.random.get_state()[2], np.random.get_state()[1].tobytes()))

    return watched


class Env:
    def __init__(self, closed: list[int], task: int) -> None:
        self.log, self.task = closed, task

    def close(self) -> None:
        self.log.append(self.task)


@pytest.mark.parametrize(
    "most, short, order, builds",
    [
        (3, False, [0, 1, 2, 0, 1, 2], 3),
        (2, False, [0, 1, 2, 0, 1, 2], 4),  # 0 stays, 1 and 2 take turns: of those used in turns the first are kept
        (1, False, [0, 0, 1, 1, 0], 3),
        (9, True, [0, 1, 0, 1], 4),  # where memory is short there is one
    ],
)
def test_as_many_models_are_kept_as_may_be(
    most: int, short: bool, order: list[int], builds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_models, "memory_is_short", lambda: short)
    kept, closed, built = KeptModels(most), [], []

    def build(task: int) -> Env:
        built.append(task)
        return Env(closed, task)

    for task in order:
        assert kept.get(task, lambda task=task: build(task)).task == task
        assert len(kept) <= (1 if short else most)
    assert len(built) == builds and len(closed) == builds - len(kept)
    kept.close()
    assert sorted(closed) == sorted(built)


@pytest.mark.parametrize("available, short", [(10, True), (24, True), (26, False), (90, False)])
def test_memory_is_short_below_a_quarter(tmp_path: Path, available: int, short: bool) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:  {available} kB\nHugePages_Total: 0\n")
    assert kept_models.memory_is_short(str(meminfo)) is short
    assert not kept_models.memory_is_short(str(tmp_path / "none"))


@pytest.mark.slow
def test_pictures_are_of_their_own_tick_however_late_they_are_read(libero: MakeLibero) -> None:
    robot = libero(tasks=[0])
    [expected] = rollout(robot, [0], seed=5, ticks=5)
    robot.reset(0, seed=5)
    kept = []
    for _, _, action in expected:
        kept.append(robot.observe())
        robot.act(action)
    assert robot.renders == 0
    for observation, (raw, _, _) in reversed([*zip(kept, expected, strict=True)]):
        np.testing.assert_array_equal(observation.arrays[IMAGE], raw["agentview_image"][::-1, ::-1])
        np.testing.assert_array_equal(observation.arrays[IMAGE], raw["agentview_image"][::-1, ::-1])
    assert robot.renders == len(kept)  # the second look costs nothing
    unread = robot.observe()
    robot.reset(0, seed=5)
    with pytest.raises(RuntimeError, match="never read in its own episode"):
        unread.arrays[IMAGE]
    robot.close()


@pytest.mark.slow
def test_absolute_control_goes_where_it_is_told(libero: MakeLibero) -> None:
    robot = libero(tasks=[0], control="absolute", cameras=[])
    assert robot.spec.action.mode == ("absolute",) * 6 + ("binary",) and robot.spec.action.unit[0] == "m"
    robot.reset(0, 0)
    start = robot.observe().arrays[STATE]
    target = np.concatenate([start[:3] + np.float32([0.05, -0.1, 0.08]), start[3:6], [-1.0]]).astype(np.float32)
    for _ in range(60):
        robot.act(target)
    np.testing.assert_allclose(robot.observe().arrays[STATE][:3], target[:3], atol=0.01)


@pytest.mark.slow
def test_robots_of_one_process_draw_each_its_own_pictures_from_any_thread(libero: MakeLibero) -> None:
    def pictures(robot: LiberoRobot) -> list[np.ndarray]:
        robot.act(np.float32([0.5, 0, 0, 0, 0, 0, 1]))
        return [robot.observe().arrays[IMAGE]]

    def alone(task: int) -> list[np.ndarray]:
        robot = libero(tasks=[task])
        robot.reset(0, 0)
        seen = pictures(robot) + pictures(robot)
        robot.close()
        return seen

    expected = [alone(task) for task in (0, 1)]
    robots = [libero(tasks=[task]) for task in (0, 1)]
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(robots[0].reset, 0, 0).result()
        robots[1].reset(0, 0)
        seen = [pictures(robot) for robot in robots]
        seen = [before + elsewhere.submit(pictures, robot).result() for before, robot in zip(seen, robots, strict=True)]
        elsewhere.submit(robots[1].close).result()
    np.testing.assert_array_equal(seen, expected)
    assert not np.array_equal(expected[0], expected[1])
    robots[0].close()


@pytest.mark.slow
class TestLiberoConformance(RobotConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def built(cls) -> Iterator[LiberoRobot]:
        robot = new_libero(tasks=[0, 4], image_size=(64, 64))
        yield robot
        robot.close()

    @pytest.fixture
    def robot(self, built: LiberoRobot) -> Robot:
        return built


class Watcher(Policy):
    """Asks for both cameras, moves nothing."""

    def __init__(self, robot: Robot) -> None:
        inputs = {name: robot.spec.observations[name] for name in (IMAGE, WRIST)}
        self._spec = PolicySpec("watcher", inputs, robot.spec.action, HORIZON)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: object) -> None:
        pass

    def infer(self, requests: Any) -> list[Chunk]:
        for request in requests:
            assert request.observation.arrays[IMAGE].std() > 10, "a picture, not a blank"
        return [Chunk(r.observation.tick, np.zeros((HORIZON, 7), np.float32)) for r in requests]


@pytest.mark.slow
def test_a_run_renders_what_the_policy_asks_for_and_nothing_else(libero: MakeLibero, serve: Any) -> None:
    robot, clock = libero(tasks=[2], max_steps=40), VirtualClock(20.0)
    link = Link(serve(Watcher(robot)).endpoint)
    policy = link.hello(robot.spec, 5)
    delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:2"), lost_after_s=20)
    stats = RobotNode(robot, policy, delayed, clock, LoopConfig()).run_episode(0, 0)
    assert stats.ticks == 40 and stats.requests > 4
    assert stats.renders == 2 * stats.requests
    link.close()
    robot.close()


@pytest.mark.slow
def test_state_is_lerobots_processor_bit_for_bit() -> None:
    import torch
    from lerobot.processor.env_processor import LiberoProcessorStep

    rng = np.random.default_rng(0)
    for index in range(200):
        quaternion = rng.normal(size=4)
        quaternion /= np.linalg.norm(quaternion)
        if index == 0:
            quaternion = np.array([0.0, 0.0, 0.0, 1.0])
        raw = {
            "robot0_eef_pos": rng.normal(size=3),
            "robot0_eef_quat": quaternion,
            "robot0_gripper_qpos": rng.normal(size=2),
        }
        tensors = {key: torch.from_numpy(value)[None] for key, value in raw.items()}
        robot_state = {
            "eef": {"pos": tensors["robot0_eef_pos"], "quat": tensors["robot0_eef_quat"]},
            "gripper": {"qpos": tensors["robot0_gripper_qpos"]},
        }
        theirs = LiberoProcessorStep().observation({"observation.robot_state": robot_state})["observation.state"]
        np.testing.assert_array_equal(lerobot_state(raw), theirs[0].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"])
def test_every_suite_has_its_tasks_states_and_spec(
    libero: MakeLibero, suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libero_assets, "COVERED_SUITES", (suite,))
    robot = libero(suite)
    count = 90 if suite == "libero_90" else 10
    scenes = [robot.scene(episode) for episode in range(2 * count)]
    assert {scene.labels["task_id"] for scene in scenes} == set(range(count))
    assert [scene.labels["init_state"] for scene in scenes] == [0] * count + [1] * count
    assert all(scene.task for scene in scenes)
    assert robot.spec.observations[ENVIRONMENT_STATE].shape[0] % 7 == 0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"suite": "libero_kitchen"}, "accepted: libero_spatial, libero_object, libero_goal, libero_10, libero_90"),
        ({"cameras": ["sideview"]}, "accepted: agentview, robot0_eye_in_hand"),
        ({"control": "torque"}, "accepted: relative, absolute"),
        ({"image_size": (0, 256)}, "image_size.0: found 0; must be positive"),
    ],
)
def test_config_says_what_exists(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LiberoConfig(**changes)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"tasks": [10]}, r"robot.tasks: found \[10\]; accepted: a list of indices from 0 to 9"),
        ({"tasks": []}, r"robot.tasks: found \[\]"),
        ({"init_states": [50]}, "robot.init_states: found .* from 0 to 49"),
    ],
)
def test_tasks_and_states_that_do_not_exist(libero: MakeLibero, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        libero(**changes)


def test_assets_that_cannot_be_had_are_errors_not_substitutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LIBERO_ASSETS", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SpecError, match="HF_HUB_OFFLINE is set"):
        libero_assets.resolve("hub", "libero_object")
    with pytest.raises(SpecError, match="is not a LIBERO assets folder: it has no articulated_objects"):
        libero_assets.resolve(str(tmp_path), "libero_object")
    with pytest.raises(SpecError, match="primitive assets cover .* not libero_10: set \\$LIBERO_ASSETS"):
        libero_assets.resolve("primitive", "libero_10")
    monkeypatch.setenv("LIBERO_ASSETS", "/does/not/exist")
    with pytest.raises(SpecError, match=r"\$LIBERO_ASSETS=/does/not/exist is not a LIBERO assets folder"):
        libero_assets.resolve("auto", "libero_object")


def test_auto_falls_back_to_primitive_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LIBERO_ASSETS", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assets = libero_assets.resolve("auto", "libero_object")
    assert assets.kind == "primitive" and "HF_HUB_OFFLINE is set" in str(assets)
    assert (assets.path / "scenes").is_dir() and os.path.commonpath([assets.path, tmp_path]) == str(tmp_path)
