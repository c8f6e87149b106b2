"""The picker on the twin's table in virtual time, and its kinematics against MuJoCo's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
from desk import Desk, to_rad
from hypothesis import given, settings
from hypothesis import strategies as st

from tactus.hal.config import ConfigError
from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Observation
from tactus.hal.twin.config import JOINTS
from tactus.hal.twin.scene import FEATURE
from tactus.hal.twin.table_world import TableWorld
from tactus.policies.policy import Policy, Request, Session
from tactus.policies.scripted.picker import ACTION, ENVIRONMENT_FEATURE, FPS, NAMES, PickerConfig
from tactus.policies.scripted.picker_plan import HOME
from tactus.policies.scripted.picker_vision import BIN_M, CAMERA_M, FOVY_DEG, SIDE_M, find
from tactus.policies.scripted.so101_kinematics import MARGIN_DEG, RANGE_DEG, forward, inverse, reach_down
from tactus.testing import PolicyConformance


@pytest.fixture(scope="module")
def world() -> TableWorld:
    return TableWorld()


def tip(world: TableWorld, joints_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position and rotation of the point between the jaws, by MuJoCo."""
    joints = world._arms["arm"]
    joints.place(to_rad(np.array([*joints_deg[:5], 50.0])))
    mujoco.mj_forward(world.model, world.data)
    site = world.data.site("arm_grip")
    return site.xpos.copy(), site.xmat.reshape(3, 3).copy()


@settings(max_examples=100)
@given(shares=st.lists(st.floats(-1, 1), min_size=5, max_size=5))
def test_forward_kinematics_equal_mujocos(world: TableWorld, shares: list[float]) -> None:
    joints = np.array(shares) * RANGE_DEG
    position, rotation = tip(world, joints)
    found, pitch, _ = forward(joints)
    np.testing.assert_allclose(found, position, atol=1e-9)
    assert np.sin(pitch) == pytest.approx(-rotation[2, 0], abs=1e-6)


@settings(max_examples=100)
@given(
    radius=st.floats(0.165, 0.245),
    azimuth=st.floats(-1.1, 1.2),
    z=st.floats(0.012, 0.125),
    yaw=st.floats(-3.1, 3.1),
)
def test_the_inverse_reaches_what_it_is_asked_for(
    world: TableWorld, radius: float, azimuth: float, z: float, yaw: float
) -> None:
    goal = np.array([0.0388 + radius * np.cos(azimuth), radius * np.sin(azimuth), z])
    joints = reach_down(goal, yaw)
    assert joints is not None
    assert (np.abs(joints) <= RANGE_DEG - MARGIN_DEG).all()
    position, rotation = tip(world, joints)
    np.testing.assert_allclose(position, goal, atol=1e-8)
    if rotation[2, 0] < -1 + 1e-12:  # straight down: the closing direction is the one asked for, or 90 degrees from it
        closing = np.arctan2(rotation[1, 2], rotation[0, 2])
        assert np.sin(2 * (closing - yaw)) == pytest.approx(0, abs=1e-5)


def test_what_is_out_of_reach_has_no_solution() -> None:
    assert inverse(np.array([0.6, 0.0, 0.05]), 0.0, np.pi / 2) is None
    assert reach_down(np.array([-0.2, 0.0, 0.02]), 0.0) is None
    assert reach_down(np.array([0.0388, 0.0, 0.02]), 0.0) is None


class TestPicker(PolicyConformance):
    task = "pick up the red cube and put it into the bin"

    @pytest.fixture
    def policy(self) -> Policy:
        return PickerConfig().make()


class TestPickerWithVision(PolicyConformance):
    @pytest.fixture
    def policy(self) -> Policy:
        return PickerConfig(vision=True).make()


def test_it_knows_the_twins_camera_and_bin(world: TableWorld) -> None:
    camera = world.model.camera("top")
    np.testing.assert_allclose(camera.pos, CAMERA_M)
    assert camera.fovy == FOVY_DEG
    np.testing.assert_allclose(world.model.body("bin").pos, BIN_M)
    assert 2 * world.model.geom("cube").size[0] == pytest.approx(SIDE_M)


def test_it_sees_no_cube_where_there_is_none() -> None:
    grey = np.full((240, 320, 3), 180, np.uint8)
    assert find(grey) is None
    speck = grey.copy()
    speck[100:104, 100:104] = (220, 20, 20)
    assert find(speck) is None, "too small to be the whole cube"
    wall = grey.copy()
    wall[:, 100:200] = (220, 20, 20)
    assert find(wall) is None, "too large to be a cube"


@pytest.mark.slow
def test_it_picks_what_it_sees() -> None:
    """In a process of its own, where MuJoCo can be told how to draw before it is imported."""
    out = subprocess.run(
        [sys.executable, "-c", PICK_BY_SIGHT], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    found = json.loads(out.stdout)
    assert np.abs(found["errors_m"]).max() < 0.003
    assert sum(time is not None for time in found["times"]) >= 9, found["times"]


PICK_BY_SIGHT = """
import json
from dataclasses import replace
from tactus.hal.twin.renderer import Renderer
from desk import Desk
from tactus.hal.config import ConfigError
from tactus.hal.spec import STATE
from tactus.policies.scripted.picker import TOP, PickerConfig
from tactus.policies.scripted.picker_vision import find

picture = Renderer(["arm"], None, ["top"], 240, 320)
errors = []

class Seeing(Desk):
    def observe(self, tick):
        told = super().observe(tick)
        image = picture.draw("top", self.world.data.qpos).copy()
        patch = find(image)
        cube = self.world.state()["cube"]
        if tick == 0 and patch is not None:
            errors.append([patch.x_m - cube[0], patch.y_m - cube[1]])
        return replace(told, arrays={STATE: told.arrays[STATE], TOP: image})

desk = Seeing(PickerConfig(vision=True).make(), latency=5)
times = [desk.episode(number, seed=2) for number in range(10)]
print(json.dumps({"errors_m": errors, "times": times}))
"""


def test_its_vocabulary_is_the_twins() -> None:
    assert ENVIRONMENT_FEATURE == FEATURE
    assert tuple(f"{joint}.pos" for joint in JOINTS) == NAMES == ACTION.names


@pytest.mark.slow
@pytest.mark.parametrize("latency", [0, 4, 10])
def test_it_picks_cubes_wherever_they_lie_whatever_the_latency(latency: int) -> None:
    desk = Desk(PickerConfig().make(), latency)
    times = [desk.episode(episode, seed=latency) for episode in range(24)]
    assert sum(time is not None for time in times) >= 23, times
    assert np.median([time for time in times if time]) < 12


def test_its_motions_are_smooth() -> None:
    desk = Desk(PickerConfig().make(), latency=5)
    start = desk.arm
    assert desk.episode(3)
    actions = np.array(desk.actions)
    assert np.abs(actions[0, :5] - start[:5]).max() < 3
    speeds = np.diff(actions[:, :5], axis=0) * FPS
    assert np.abs(speeds).max() < 90
    assert np.abs(np.diff(speeds, axis=0)).max() * FPS < 800  # deg/s²


def test_it_ends_at_rest_at_home_and_stays_there() -> None:
    desk = Desk(PickerConfig().make())
    assert desk.episode(0, after_s=6)
    np.testing.assert_allclose(desk.arm, HOME, atol=1.0)
    assert np.abs(desk.actions[-1] - desk.actions[-15]).max() == 0


@pytest.mark.parametrize("tick", [10, 70, 95, 120, 150, 190])
def test_a_cube_that_is_moved_on_the_way_is_fetched_from_there(tick: int) -> None:
    desk = Desk(PickerConfig().make(), latency=5)

    def steal(world: TableWorld, now: int) -> None:
        if now == tick:
            assert world.handle({"do": "reset", "episode": 99, "seed": 1})

    desk.meddle = steal
    assert desk.episode(1, seconds=40)
    speeds = np.diff(np.array(desk.actions)[:, :5], axis=0) * FPS
    assert np.abs(speeds).max() < 90


def test_an_arm_that_is_held_up_starts_again_without_a_jump() -> None:
    desk = Desk(PickerConfig().make(), latency=5)

    def hold(world: TableWorld, now: int) -> None:
        dof = world.model.joint("arm_shoulder_pan").dofadr[0]
        world.data.qfrc_applied[dof] = 4.0 if 60 <= now < 120 else 0.0

    desk.meddle = hold
    assert desk.episode(1, seconds=40)
    assert np.abs(np.diff(np.array(desk.actions)[:, :5], axis=0)).max() * FPS < 90


def test_a_cube_out_of_reach_is_waited_for() -> None:
    desk = Desk(PickerConfig().make())

    def place(world: TableWorld, now: int) -> None:
        world.data.qpos[:3] = (0.5, 0.3, 0.0135) if now < 200 else world.data.qpos[:3]
        if now == 200:
            np.testing.assert_allclose(desk.arm, HOME, atol=1.5)
            assert world.handle({"do": "reset", "episode": 7, "seed": 0})

    desk.meddle = place
    assert desk.episode(0, seconds=30)


def test_a_cube_in_the_bin_leaves_nothing_to_do() -> None:
    policy = PickerConfig().make()
    policy.reset(Session("a", 0, ""))
    poses = np.array([0.165, -0.195, 0.0175, 0, 0, 0, 1, 0.165, -0.195, 0.0], np.float32)
    for tick in range(0, 150, 15):
        arrays = {STATE: HOME.astype(np.float32), ENVIRONMENT_STATE: poses}
        [chunk] = policy.infer([Request("a", Observation(arrays, {}, tick, ""), 15)])
        np.testing.assert_allclose(chunk.actions, np.tile(HOME, (30, 1)), atol=1e-4)


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"horizon": 301}, {"commit": -1}, {"image_size": (0, 320)}])
def test_unusable_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}.*found"):
        PickerConfig(**wrong)
