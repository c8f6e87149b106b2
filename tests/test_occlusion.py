"""Observations that are kept from a policy: zeros of their shape, unread, in every command that has a policy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeLibero
from doubles import synthetic
from processes import serving

from tactus.hal.robot import Robot
from tactus.hal.spec import IMAGES, STATE, SpecError
from tactus.hal.wrappers.occlusion import OccludedRobot
from tactus.runtime.commands import main
from tactus.testing import RobotConformance


def robot() -> Robot:
    return synthetic(cameras=2, image_size=(16, 24)).make()


class TestConformance(RobotConformance):
    @pytest.fixture
    def robot(self) -> Robot:
        return OccludedRobot(robot(), ["camera_0"])


def test_what_is_hidden_is_zero_and_the_rest_is_as_it_was() -> None:
    plain = robot()
    names = [name for name in plain.spec.observations if name.startswith(IMAGES)]
    hidden = OccludedRobot(robot(), [names[0], "state"])
    for each in (plain, hidden):
        each.connect()
        each.reset(3, 5)
        each.act(np.ones(3, np.float32))
    seen, kept = plain.observe().arrays, hidden.observe().arrays
    assert list(seen) == list(kept)
    for name in seen:
        expected = np.zeros_like(seen[name]) if name in (names[0], STATE) else seen[name]
        np.testing.assert_array_equal(kept[name], expected)
        assert kept[name].dtype == seen[name].dtype and hidden.spec == plain.spec
    assert seen[names[0]].any() and seen[STATE].any()


@pytest.mark.slow
def test_a_picture_that_nobody_sees_is_not_made(libero: MakeLibero) -> None:
    black = OccludedRobot(libero("libero_object", tasks=[1], init_states=[3], image_size=(32, 32)), ["image"])
    black.reset(0, 0)
    seen = black.observe().arrays
    assert not seen[f"{IMAGES}image"].any() and black.renders == 0
    assert seen[f"{IMAGES}image2"].any() and black.renders == 1


def test_names_that_there_are_not() -> None:
    with pytest.raises(SpecError, match="occlude: found wrist; this robot observes .*state"):
        OccludedRobot(robot(), ["wrist"])


@pytest.mark.slow
def test_the_command_says_so_in_its_results(tmp_path: Path) -> None:
    with serving(tmp_path / "log", "--policy.type=ticker", "--policy.width=3") as (_, endpoint):
        words = [
            "--robot.type=synthetic",
            "--robot.width=3",
            "--robot.steps=5",
            f"--connect={endpoint}",
            "--episodes=1",
        ]
        assert main(["eval", *words, "--occlude=state", f"--output_dir={tmp_path / 'one'}"]) == 0
        assert main(["eval", *words, "--occlude=state", "--workers=2", f"--output_dir={tmp_path / 'two'}"]) == 0
        assert main(["eval", *words, "--occlude=eyes", f"--output_dir={tmp_path / 'three'}"]) == 2
        assert main(["eval", *words, "--resume", f"--output_dir={tmp_path / 'one'}"]) == 2, "another experiment"
    for name in ("one", "two"):
        assert json.loads((tmp_path / name / "summary.json").read_text())["occlude"] == ["state"]
