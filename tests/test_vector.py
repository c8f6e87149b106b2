"""Several robots behind gymnasium's vector interface: the episodes of `tactus eval`, whoever else is in the vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from doubles import synthetic
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from tactus.hal.camera import CameraConfig
from tactus.hal.gym import GymConfig
from tactus.hal.gym.vector import RobotVector
from tactus.hal.libero import LiberoConfig
from tactus.hal.libero.config import CAMERAS
from tactus.hal.robot import RobotConfig
from tactus.hal.spec import IMAGES, STATE, SpecError
from tactus.hal.wrappers.checked import make

SEED, TICKS = 7, 6


def played(config: RobotConfig, episode: int, names: list[str]) -> list[dict[str, np.ndarray]]:
    """What a robot of its own observes in an episode; actions repeat."""
    with make(config) as robot:
        robot.reset(episode, SEED)
        seen = [{name: robot.observe().arrays[name] for name in names}]
        for action in actions_of(config, episode):
            robot.act(action)
            seen.append({name: robot.observe().arrays[name] for name in names})
    return seen


def actions_of(config: RobotConfig, episode: int) -> np.ndarray:
    action = config.make().spec.action
    drawn = np.random.default_rng([SEED, episode]).uniform(-1, 1, (TICKS, *action.shape))
    return drawn.astype(action.dtype)


def check_against_robots(configs: list[RobotConfig], episodes: list[int], threads: int, names: list[str]) -> None:
    vector = RobotVector(configs, SEED, names, threads=threads)
    try:
        alone = [played(config, episode, names) for config, episode in zip(configs, episodes, strict=True)]
        seen, infos = vector.reset(options={"episodes": episodes})
        assert infos["episode"].tolist() == episodes
        for tick in range(TICKS + 1):
            for i, own in enumerate(alone):
                for name in names:
                    np.testing.assert_array_equal(seen[name][i], own[tick][name], strict=True)
            if tick < TICKS:
                chosen = [actions_of(c, e)[tick] for c, e in zip(configs, episodes, strict=True)]
                seen, *_ = vector.step(np.stack(chosen))
    finally:
        vector.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_every_robot_plays_what_it_plays_alone(threads: int) -> None:
    camera = "observation.images.camera_0"
    configs: list[RobotConfig] = [synthetic(cameras=1, image_size=(4, 6)) for _ in range(3)]
    check_against_robots(configs, [5, 0, 2], threads, [STATE, camera])
    check_against_robots(
        [GymConfig(kwargs={"obs_type": "state"}) for _ in range(2)], [1, 1], threads, ["observation.state"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("cameras", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_libero_in_one_process_to_the_bit(threads: int, cameras: bool) -> None:
    names = [STATE, "observation.environment_state"]
    config = LiberoConfig(assets="primitive", cameras=[], environment_state=True)
    if cameras:
        config = LiberoConfig(assets="primitive", image_size=(64, 64), environment_state=True)
        names += [f"{IMAGES}{camera}" for camera in CAMERAS.values()]
    check_against_robots([config, config], [0, 11], threads, names)


@settings(max_examples=30)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3).filter(any), min_size=1, max_size=6))
def test_robots_are_reset_one_by_one_each_to_its_next_episode(masks: list[list[bool]]) -> None:
    vector = RobotVector([synthetic() for _ in range(3)], SEED)
    vector.reset()
    expected = np.arange(3)
    for mask in masks:
        before = vector._seen[STATE].copy()
        seen, infos = vector.reset(options={"reset_mask": np.array(mask)})
        expected = expected + 3 * np.array(mask)
        np.testing.assert_array_equal(infos["_episode"], mask)
        np.testing.assert_array_equal(infos["episode"][mask], expected[mask])
        np.testing.assert_array_equal(seen[STATE][~np.array(mask)], before[~np.array(mask)])
        for i, episode in enumerate(expected):
            np.testing.assert_array_equal(seen[STATE][i], played(synthetic(), int(episode), [STATE])[0][STATE])
    vector.close()


def test_an_episode_ends_by_itself_or_is_truncated_and_waits_for_a_reset() -> None:
    vector = RobotVector([synthetic(steps=3), synthetic(steps=9)], SEED, max_ticks=5)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    with pytest.raises(SpecError, match=r"robots \[0, 1\] are over, or were not begun"):
        vector.step(np.zeros((2, 3), np.float32))
    _, infos = vector.reset()
    assert not infos["success"].any()
    ends = []
    for _ in range(5):
        _, rewards, terminated, truncated, infos = vector.step(np.zeros((2, 3), np.float32))
        assert rewards.shape == (2,) and vector.action_space.contains(np.zeros((2, 3), np.float32))
        ends.append((terminated.tolist(), truncated.tolist()))
        if terminated[0] or truncated[0]:
            assert infos["success"][0]
            with pytest.raises(SpecError, match=r"robots \[0.*\] are over"):
                vector.step(np.zeros((2, 3), np.float32))
            vector.reset(options={"reset_mask": np.array([True, False])})
    assert ends[2] == ([True, False], [False, False]) and ends[4] == ([False, False], [False, True])
    vector.close()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"reset_mask": np.array([1, 0])}, r"reset_mask: found int64\[2\], expected bool\[2\]"),
        ({"reset_mask": np.array([True])}, r"reset_mask: found bool\[1\], expected bool\[2\]"),
        ({"episodes": [1]}, r"episodes: found \[1\], expected 2 numbers from 0"),
        ({"episodes": [1, -1]}, "expected 2 numbers from 0"),
        ({"episodes": [1.5, 2]}, "expected 2 numbers from 0"),
    ],
)
def test_a_reset_that_is_none(options: dict[str, Any], words: str) -> None:
    vector = RobotVector([synthetic(), synthetic()])
    with pytest.raises(SpecError, match=words):
        vector.reset(options=options)
    vector.close()


def test_a_vector_that_cannot_be() -> None:
    with pytest.raises(SpecError, match="observe and take the same; synthetic does not"):
        RobotVector([synthetic(), synthetic(width=4)])
    with pytest.raises(SpecError, match=r"observations: found nothing; there are observation\.state"):
        RobotVector([synthetic()], observations=["nothing"])
    with pytest.raises(SpecError, match="camera cannot tell how an episode stands"):
        RobotVector([CameraConfig(source="/dev/null", name="top")])
    vector = RobotVector([synthetic()])
    vector.reset()
    with pytest.raises(SpecError, match=r"actions: found \[3\], expected \[1, 3\]"):
        vector.step(np.zeros(3, np.float32))
    vector.close()


def test_spaces_are_the_specs() -> None:
    vector: Any = RobotVector([synthetic(cameras=1, image_size=(4, 6), limit=0.5)] * 2)
    assert vector.observation_space[STATE].shape == (2, 3)
    assert vector.observation_space["observation.images.camera_0"].dtype == np.uint8
    assert vector.single_action_space.high.tolist() == [0.5] * 3 and vector.action_space.shape == (2, 3)
    observations, _ = vector.reset()
    assert vector.observation_space.contains(observations)
    vector.close()
