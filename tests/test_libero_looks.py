"""Looks that vary: other pictures, the same physics, by the seed, and nothing is left of them in the next episode."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import MakeLibero

from tactus.hal.libero.robot import LiberoRobot
from tactus.hal.spec import IMAGES

pytestmark = pytest.mark.slow
SMALL = {"tasks": [1], "init_states": [3], "image_size": (64, 64)}
WAVE = np.array([0.3, -0.2, -0.4, 0, 0, 0.1, 1], np.float32)


def played(robot: LiberoRobot, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The state after some ticks, and the pictures then."""
    robot.reset(0, seed)
    for _ in range(6):
        robot.act(WAVE)
    seen = robot.observe().arrays
    return robot.sim_state, {name: seen[name] for name in seen if name.startswith(IMAGES)}


@pytest.mark.parametrize("suite", ["libero_object", "libero_spatial"])
def test_pictures_differ_by_the_seed_and_physics_does_not(libero: MakeLibero, suite: str) -> None:
    plain = libero(suite, **SMALL)
    state, pictures = played(plain, 5)
    assert "looks" not in plain.spec.details
    varied = libero(suite, looks="varied", **SMALL)
    assert varied.spec.details["looks"] == "varied"
    first, other, again = (played(varied, seed) for seed in (5, 6, 5))
    for found, _ in (first, other, again):
        np.testing.assert_array_equal(found, state)
    for camera, picture in pictures.items():
        np.testing.assert_array_equal(first[1][camera], again[1][camera])
        for one in (picture, other[1][camera]):
            assert np.abs(first[1][camera].astype(int) - one).mean() > 3


def test_what_varies_is_put_back(libero: MakeLibero) -> None:
    """Drawn from where the scene began, never from the episode before."""
    robot = libero("libero_object", looks="varied", **SMALL)
    for seed in range(20):
        robot.reset(0, seed)
    _, late = played(robot, 5)
    _, fresh = played(libero("libero_object", looks="varied", **SMALL), 5)
    for camera, picture in fresh.items():
        np.testing.assert_array_equal(late[camera], picture)


def test_what_does_not_vary_is_one_of_what_does(libero: MakeLibero) -> None:
    """Neither darker nor lighter than all the others: a policy that has seen many knows it."""
    camera = f"{IMAGES}image"
    plain = played(libero("libero_object", **SMALL), 0)[1][camera].mean()
    robot = libero("libero_object", looks="varied", **SMALL)
    varied = [played(robot, seed)[1][camera].mean() for seed in range(20)]
    assert min(varied) < plain < max(varied) and 0.8 * plain < np.mean(varied) < 1.2 * plain, (plain, varied)
