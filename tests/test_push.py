"""The planar push and its script: what decides an episode, what actions do, who succeeds, and how."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from tactus.hal.config import ConfigError
from tactus.hal.push import PushConfig
from tactus.hal.robot import Robot, RobotError
from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE, SpecError
from tactus.policies.policy import Policy, Request, Session
from tactus.policies.scripted.config import PusherConfig
from tactus.testing import RobotConformance

pytestmark = pytest.mark.slow

TOP = f"{IMAGES}top"


class TestPushWithACamera(RobotConformance):
    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        with PushConfig(camera=True, image_size=(24, 32)).make() as robot:
            yield robot


@pytest.fixture
def robot() -> Iterator[Robot]:
    with PushConfig().make() as robot:
        yield robot


def start(robot: Robot, episode: int, seed: int) -> np.ndarray:
    robot.reset(episode, seed)
    arrays = robot.observe().arrays
    return np.concatenate([arrays[STATE], arrays[ENVIRONMENT_STATE]])


def played(robot: Robot, policy: Policy, episode: int) -> np.ndarray:
    """Every observation of an episode, each chunk executed before the next is asked for."""
    robot.reset(episode, seed=0)
    policy.reset(Session("s", episode, ""))
    seen = []
    while True:
        observation = robot.observe()
        for action in policy.infer([Request("s", observation)])[0].actions:
            arrays = robot.observe().arrays
            seen.append(np.concatenate([arrays[STATE], arrays[ENVIRONMENT_STATE]]))
            robot.act(action)
            if robot.outcome().done:
                return np.array(seen)


def test_an_episode_is_its_seed_and_its_number(robot: Robot) -> None:
    starts = [start(robot, episode, seed) for seed in (0, 1) for episode in range(40)]
    assert len({a.tobytes() for a in starts}) == 80
    with PushConfig(camera=True).make() as other:
        np.testing.assert_array_equal([start(other, episode, 1) for episode in range(39, -1, -1)], starts[:39:-1])
    gaps = np.linalg.norm(np.array(starts)[:, 6:] - np.array(starts)[:, 2:4], axis=1)
    assert (gaps > 0.11).all() and (gaps < 0.16).all()  # never solved at the start


def test_actions_are_steps_and_are_cut_off_at_one(robot: Robot) -> None:
    for action, sent in [([-1, 0.5], [-1, 0.5]), ([-7, 0.5], [-1, 0.5]), ([0, 0], [0, 0])]:
        before = start(robot, 3, 0)[:2]
        for _ in range(4):
            np.testing.assert_array_equal(robot.act(np.array(action, np.float32)), np.array(sent, np.float32))
        moved = robot.observe().arrays[STATE] - before
        np.testing.assert_allclose(moved, 4 * 0.015 * np.array(sent), atol=0.006)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_moves_nothing(robot: Robot, number: float) -> None:
    before = start(robot, 0, 0)
    with pytest.raises(RobotError, match=r"action: found .* accepted: finite numbers, -1 to 1"):
        robot.act(np.array([number, 0], np.float32))
    np.testing.assert_array_equal(robot.observe().arrays[STATE], before[:2])


@pytest.mark.parametrize("steps", [1, 60, 80])
def test_an_episode_ends_at_its_limit(steps: int) -> None:
    with PushConfig(max_steps=steps).make() as robot:
        robot.reset(0, seed=0)
        for tick in range(steps):
            assert not robot.outcome().done, tick
            robot.act(np.zeros(2, np.float32))
        assert robot.outcome().done and not robot.outcome().success
        robot.reset(0, seed=0)
        assert not robot.outcome().done


@pytest.mark.parametrize("horizon", [1, 8, 16])
def test_the_script_succeeds(robot: Robot, horizon: int) -> None:
    policy = PusherConfig(horizon=horizon).make()
    succeeded = []
    for episode in range(100):
        last = played(robot, policy, episode)[-1]
        outcome = robot.outcome()
        succeeded.append(outcome.success)
        place, goal = robot.observe().arrays[ENVIRONMENT_STATE][:2], last[6:]
        assert outcome.success == (np.linalg.norm(place - goal) < 0.03)
        assert outcome.reward == outcome.success
    assert np.mean(succeeded) >= 0.95


def test_mistakes_are_of_several_kinds_and_fail(robot: Robot) -> None:
    """The block is hardly moved, or it is carried to somewhere else."""
    policy = PusherConfig(mistakes=1.0).make()
    moved, succeeded = [], 0
    for episode in range(40):
        seen = played(robot, policy, episode)
        succeeded += robot.outcome().success
        moved.append(np.linalg.norm(seen[-1, 2:4] - seen[0, 2:4]))
    assert succeeded <= 12
    assert sum(m < 0.02 for m in moved) >= 5 and sum(m > 0.08 for m in moved) >= 5


@pytest.mark.parametrize(("keys", "least", "most"), [({"noise": 1.5}, 0.1, 0.8), ({"mistakes": 0.6}, 0.2, 0.6)])
def test_the_script_is_as_sloppy_as_it_is_told(robot: Robot, keys: dict[str, float], least: float, most: float) -> None:
    policy = PusherConfig(**keys).make()
    succeeded = []
    for episode in range(60):
        played(robot, policy, episode)
        succeeded.append(robot.outcome().success)
    assert least <= np.mean(succeeded) <= most


def test_pictures_are_drawn_when_read_and_of_their_own_moment() -> None:
    with PushConfig(camera=True, image_size=(64, 48)).make() as robot:
        robot.reset(0, seed=0)
        first = robot.observe()
        for _ in range(12):
            robot.act(np.array([1, 0], np.float32))
        second = robot.observe()
        assert robot.renders == 0
        late = first.arrays[TOP].copy()
        assert robot.renders == 1 and late.shape == (64, 48, 3)
        assert (late != second.arrays[TOP]).any()
        robot.reset(0, seed=0)
        np.testing.assert_array_equal(robot.observe().arrays[TOP], late)
        blue = late[..., 2].astype(int) - late[..., 0]
        green = late[..., 1].astype(int) - late[..., 0]
        assert np.argwhere(blue > 60)[:, 1].mean() < np.argwhere(green > 60)[:, 1].mean()  # pusher left of the goal
        robot.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PushConfig(max_steps=0), "max_steps: found 0; must be positive"),
        (lambda: PushConfig(image_size=(8, 64)), "image_size.0: found 8; must be at least 16"),
        (lambda: PushConfig(image_size=(64, 1024)), "image_size.1: found 1024; must be at most 512"),
        (lambda: PushConfig(cameras=1), "cameras: unknown key"),  # pyright: ignore
        (lambda: PusherConfig(horizon=0), "horizon: found 0; must be at least 1"),
        (lambda: PusherConfig(noise=-1), "noise: found -1; must not be negative"),
        (lambda: PusherConfig(mistakes=1.5), "mistakes: found 1.5; must be at most 1"),
    ],
)
def test_bad_keys_are_told(make: object, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        make()  # type: ignore[operator]


def test_a_missing_mujoco_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(SpecError, match=r"push needs the package mujoco.*pip install 'tactus\[gym\]'"):
        PushConfig().make()
