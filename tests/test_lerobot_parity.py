"""At zero latency a LeRobot checkpoint does here what it does in lerobot-eval: the same bits, over real sockets.

The reference is LeRobot's own `rollout`, with its env, its processors and its per-step `select_action`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import checkpoints
import numpy as np
import pytest
import torch
from conftest import MakeLibero, Serve
from flow_teachers import observations

from tactus.hal.gym import GymConfig
from tactus.hal.robot import Robot
from tactus.hal.spec import LazyArrays, Observation
from tactus.policies.distillation.config import DistillationConfig
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.lerobot.config import LearnedConfig
from tactus.policies.lerobot.flow_model import STEPS
from tactus.runtime.distillation.observations import Observations
from tactus.runtime.distillation.student import distill
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import TickView, Watcher
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

pytestmark = pytest.mark.slow

PUSHT_STEPS = 48
LIBERO_STEPS = 33
SEED = 100


class Rollout(NamedTuple):
    """observations: name -> [T, …] of the ticks that acted, as the preprocessor gets them. actions: [T, A]."""

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    success: bool


class Watching(Watcher):
    """A Watcher that keeps what the robot observes before every action."""

    def __init__(self) -> None:
        self.seen: list[dict[str, np.ndarray]] = []

    def before(self, view: TickView) -> None:
        self.seen.append({name: np.array(array) for name, array in view.observe().arrays.items()})


def tactus(robot: Robot, serve: Serve, folder: Path, **changes: Any) -> Rollout:
    """One episode with --latency=fixed:0, --chunk_size_threshold=0, episode 0, seed SEED."""
    policy = LeRobotConfig(path=str(folder), threads=1, **changes).make()
    link, clock = Link(serve(policy).endpoint), VirtualClock(robot.spec.fps)
    watching = Watching()
    try:
        spec = link.hello(robot.spec, 10)
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:0"), lost_after_s=60)
        node = RobotNode(robot, spec, delayed, clock, LoopConfig(chunk_size_threshold=0.0))
        stats = node.run_episode(0, SEED, [watching])
    finally:
        link.close()
    assert stats.starved_ticks == 0 and stats.outcome is not None
    seen = {name: np.stack([one[name] for one in watching.seen]) for name in watching.seen[0]}
    observations = {name: _as_floats(values, robot.spec.observations[name].is_image) for name, values in seen.items()}
    return Rollout(observations, np.stack(stats.actions), stats.outcome.success)


def _as_floats(values: np.ndarray, is_image: bool) -> np.ndarray:
    """LeRobot's form of an observation: float32, pictures [T, 3, H, W] in 0-1."""
    return (values.transpose(0, 3, 1, 2) / np.float32(255) if is_image else values).astype(np.float32)


def assert_equal(found: Rollout, expected: Rollout) -> None:
    """To the bit; ours may have observations that LeRobot's has not."""
    np.testing.assert_array_equal(found.actions, expected.actions)
    for name, values in expected.observations.items():
        np.testing.assert_array_equal(found.observations[name], values, err_msg=name)
    assert found.success == expected.success


def lerobot_eval(env_config: Any, env: Any, folder: Path) -> Rollout:
    """LeRobot's `rollout` of one env, N = 1, as lerobot-eval calls it."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.envs import make_env_pre_post_processors
    from lerobot.policies import get_policy_class, make_pre_post_processors
    from lerobot.scripts.lerobot_eval import rollout
    from lerobot.utils.random_utils import set_seed

    torch.set_num_threads(1)
    config: Any = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(folder))
    env_before, env_after = make_env_pre_post_processors(env_config, config)
    seen: list[dict[str, Any]] = []

    def looked_at(observation: dict[str, Any]) -> dict[str, Any]:
        ready = env_before(observation)
        seen.append({name: value.clone() for name, value in ready.items() if torch.is_tensor(value)})
        return ready

    set_seed(SEED)
    result = rollout(env, policy, looked_at, env_after, before, after, seeds=[SEED])  # pyright: ignore
    steps = int(result["done"][0].int().argmax()) + 1
    observations = {name: torch.cat([one[name] for one in seen[:steps]]).numpy() for name in seen[0]}
    return Rollout(observations, result["action"][0, :steps].numpy(), bool(result["success"][0, :steps].any()))


def pusht_robot() -> Robot:
    kwargs = {"obs_type": "pixels_agent_pos", "max_episode_steps": PUSHT_STEPS}
    return GymConfig(kwargs=kwargs).make()


def pusht_reference(folder: Path) -> Rollout:
    from lerobot.envs import make_env
    from lerobot.envs.configs import PushtEnv

    config = PushtEnv(episode_length=PUSHT_STEPS)
    env = make_env(config)["pusht"][0]
    try:
        return lerobot_eval(config, env, folder)
    finally:
        env.close()


PUSHT: dict[str, Any] = {
    "images": {"observation.image": (96, 96)},
    "state": 2,
    "action": 2,
    "ranges": {"observation.state": (0, 512), "action": (0, 512)},
}
Write = Callable[[Path], None]
CHECKPOINTS: dict[str, Write] = {
    "act": lambda folder: checkpoints.act(folder, chunk_size=10, n_action_steps=7, **PUSHT),
    "act_ensemble": lambda folder: checkpoints.act(
        folder, chunk_size=8, n_action_steps=1, temporal_ensemble_coeff=0.01, **PUSHT
    ),
    "diffusion": lambda folder: checkpoints.diffusion(folder, **PUSHT),
    "vqbet": lambda folder: checkpoints.vqbet(folder, **PUSHT),
    "smolvla": lambda folder: checkpoints.smolvla(folder, **PUSHT),
    "keypoints": lambda folder: checkpoints.keypoints(folder, **PUSHT),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_pusht(serve: Serve, tmp_path: Path, kind: str) -> None:
    CHECKPOINTS[kind](tmp_path / kind)
    expected = pusht_reference(tmp_path / kind)
    robot = pusht_robot()
    found = tactus(robot, serve, tmp_path / kind)
    robot.close()
    assert len(np.unique(expected.actions, axis=0)) > PUSHT_STEPS / 2, "the policy moves"
    assert {*expected.observations} == {"observation.image", "observation.state"}
    assert_equal(found, expected)


@pytest.mark.slow
def test_pi0(serve: Serve, tmp_path: Path) -> None:
    with checkpoints.tiny_pi0():
        checkpoints.pi0(tmp_path / "pi0", **PUSHT)
        expected = pusht_reference(tmp_path / "pi0")
        robot = pusht_robot()
        found = tactus(robot, serve, tmp_path / "pi0")
        robot.close()
    np.testing.assert_allclose(found.actions, expected.actions, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["smolvla", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("pi0", "pi05"))])
def test_a_student_of_one_step(serve: Serve, tmp_path: Path, kind: str) -> None:
    """What `tactus distill` writes: LeRobot's own factory loads it, and its evaluation has the bits that ours has."""
    with checkpoints.tiny_pi0():
        config = LeRobotConfig(path=str(getattr(checkpoints, kind)(tmp_path / "teacher", **PUSHT)), threads=1)
        teacher = config.make()
        seen = observations(teacher.spec, 32, 0)
        brief = DistillationConfig(steps=5, batch=8, pairs=64)
        place = distill(teacher, config.make, Observations(seen, [], ""), brief, tmp_path, lambda *_: lambda more: None)
        expected = pusht_reference(place)
        robot = pusht_robot()
        found = tactus(robot, serve, place)
        robot.close()
    assert json.loads((place / "config.json").read_text())[STEPS[kind != "smolvla"]] == 1
    assert_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.long] * (kind != "shipped")) for kind in ("act", "shipped", "smolvla")],
)
def test_libero(libero: MakeLibero, serve: Serve, tmp_path: Path, kind: str) -> None:
    """Two cameras, LiberoProcessorStep's flips and state, LIBERO's physics, ours rendered on demand."""
    from lerobot.envs import make_env
    from lerobot.envs.configs import LiberoEnv

    cameras = ("observation.images.image", "observation.images.image2")
    features: dict[str, Any] = {"images": dict.fromkeys(cameras, (256, 256)), "state": 8, "action": 7}
    folder, size = tmp_path / kind, 256
    if kind == "act":
        checkpoints.act(folder, chunk_size=12, n_action_steps=11, **features)
    elif kind == "smolvla":
        checkpoints.smolvla(folder, **features)
    else:
        folder, size = Path(LearnedConfig().path), 96

    robot = libero(tasks=[2], max_steps=LIBERO_STEPS, image_size=(size, size))  # also tells LIBERO where the assets are
    config = LiberoEnv(
        "libero_object",
        task_ids=[2],
        episode_length=LIBERO_STEPS,
        observation_height=size,
        observation_width=size,
    )
    env = make_env(config)["libero_object"][2]
    expected = lerobot_eval(config, env, folder)
    env.close()
    found = tactus(robot, serve, folder)
    assert {*expected.observations} == {*cameras, "observation.state"}
    assert_equal(found, expected)


class OnePixelOff(Robot):
    """Passes everything on, but for one grey level of one pixel in one picture of the episode."""

    def __init__(self, robot: Robot, picture: str) -> None:
        self._robot, self._picture, self._observed = robot, picture, 0

    def observe(self) -> Observation:
        seen = self._robot.observe()
        pixels = np.array(seen.arrays[self._picture])
        pixels[40, 50, 1] ^= 1
        return Observation(LazyArrays({**seen.arrays, self._picture: pixels}), seen.stamps_ns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._robot, name)

    @property
    def spec(self) -> Any:
        return self._robot.spec

    @property
    def renders(self) -> int:
        return self._robot.renders

    def connect(self) -> None: ...
    def scene(self, episode: int) -> Any:
        return self._robot.scene(episode)

    def reset(self, episode: int, seed: int) -> None:
        self._robot.reset(episode, seed)

    def act(self, action: np.ndarray) -> np.ndarray:
        return self._robot.act(action)

    def outcome(self) -> Any:
        return self._robot.outcome()

    def close(self) -> None:
        self._robot.close()


@pytest.mark.parametrize("kind", ["act", "diffusion", "smolvla"])
def test_one_pixel_is_seen(serve: Serve, tmp_path: Path, kind: str) -> None:
    """If our preprocessing differed by one grey level of one pixel, the comparisons above would fail."""
    CHECKPOINTS[kind](tmp_path / kind)
    robot = pusht_robot()
    right = tactus(robot, serve, tmp_path / kind)
    wrong = tactus(OnePixelOff(robot, "observation.image"), serve, tmp_path / kind)
    robot.close()
    assert not np.array_equal(right.actions, wrong.actions)
