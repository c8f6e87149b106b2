"""What decides an episode is named by content: the code of a simulator, whoever wrote it, and who draws."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import tactus.hal.backends  # noqa: F401 - registers the types
from tactus.hal import provenance
from tactus.hal.config import decode
from tactus.hal.robot import Robot, RobotConfig

ENVIRONMENT = """
import gymnasium, numpy

class Point(gymnasium.Env):
    action_space = observation_space = gymnasium.spaces.Box(-1, 1, (2,), numpy.float32)
    def reset(self, **_): return numpy.zeros(2, numpy.float32), {}
    def step(self, action): return action, 0.0, False, False, {}

gymnasium.register("NAME/Point-v0", "NAME:Point", max_episode_steps=5)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to import from, and nothing known of what was imported before."""
    monkeypatch.syspath_prepend(tmp_path)
    provenance.code.cache_clear()
    return tmp_path


def made(**keys: Any) -> Robot:
    return decode(RobotConfig, keys).make()


@pytest.mark.parametrize("shape", ["module", "package"])
def test_a_gymnasium_environment_is_known_by_its_code(site: Path, shape: str) -> None:
    name = f"point_{shape}"
    file = site / (f"{name}.py" if shape == "module" else f"{name}/__init__.py")
    file.parent.mkdir(exist_ok=True)
    file.write_text(ENVIRONMENT.replace("NAME", name))
    found = []
    for change in ("", "# nothing but a remark\n", "# nothing but a remark\n"):
        file.write_text(file.read_text() if change in file.read_text() else file.read_text() + change)
        provenance.code.cache_clear()
        robot = made(type="gym", env_id=f"{name}/Point-v0", fps=10)
        found.append(dict(robot.spec.details))
        robot.close()
    before, after, again = found
    assert before[name] != after[name] and after == again
    assert before["gymnasium"] == after["gymnasium"]  # its wrappers


def test_code_is_all_that_is_read_and_its_names(site: Path) -> None:
    def now() -> str:
        provenance.code.cache_clear()
        return provenance.code("some_simulator")

    package = site / "some_simulator"
    package.mkdir()
    (package / "__init__.py").write_text("")
    seen = [now()]
    for name in ("scene.xml", "gains.json", "deep/macros_private.py"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("a")
        seen.append(now())
    (package / "scene.xml").write_text("b")
    seen.append(now())
    (package / "scene.xml").rename(package / "scenes.xml")
    seen.append(now())
    assert len(set(seen)) == len(seen) == 6
    for name in (".git/config.json", "__pycache__/x.py", "mesh.stl", "README"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("a")
        assert now() == seen[-1]


ROBOT = """
from tactus import RobotConfig
from tactus.hal.synthetic.robot import SyntheticRobot
from tactus.hal.synthetic import SyntheticConfig

class MineConfig(RobotConfig):
    entry_point = "NAME.made:make"
"""


@pytest.mark.parametrize("inside", [False, True])
def test_a_robot_of_ones_own_is_known_by_its_code(site: Path, inside: bool) -> None:
    """Alone, or as a part of a rig; what comes with Tactus goes with its version."""
    name = f"mine_{inside}".lower()
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(ROBOT.replace("NAME", name))
    (site / name / "made.py").write_text("")
    part = {"type": f"{name}:MineConfig"}
    keys = {"type": "rig", "parts": {"a": part, "b": {"type": "synthetic"}}} if inside else part
    config = decode(RobotConfig, keys)
    before = provenance.own_code(config)
    (site / name / "made.py").write_text("gain = 2\n")
    provenance.code.cache_clear()
    after = provenance.own_code(config)
    assert list(before) == list(after) == [name] and before != after
    assert provenance.own_code(decode(RobotConfig, {"type": "synthetic"})) == {}


def test_what_is_not_in_a_file_says_so(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(site / "packed.zip", "w") as archive:
        archive.writestr("in_a_zip.py", "")
        archive.writestr("package_in_a_zip/__init__.py", "")
    monkeypatch.syspath_prepend(site / "packed.zip")
    assert {provenance.code(name) for name in ("in_a_zip", "package_in_a_zip", "nowhere")} == {"not in a file"}
    (site / "linked").mkdir()
    (site / "linked" / "__init__.py").write_text("")
    (site / "linked" / "nowhere.py").symlink_to(site / "gone.py")
    assert provenance.code("linked").startswith("sha256")
    assert provenance.code("sys") == "not in a file"
    assert provenance.code.__wrapped__("__main__").startswith("sha256 ") or not hasattr(
        sys.modules["__main__"], "__file__"
    )


@pytest.mark.parametrize("chosen", ["glfw", "osmesa", "egl", "nonsense", ""])
def test_who_draws_is_a_word_whatever_is_chosen(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setenv("MUJOCO_GL", chosen)

    def no_context() -> Any:
        raise ImportError("no display")

    said = provenance.renderer.__wrapped__(no_context)
    assert said == {"": "not chosen"}.get(chosen, chosen) or said == f"{chosen}, which cannot draw here (ImportError)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "known"),
    [
        ({"type": "pusht"}, {"gym_pusht"}),
        ({"type": "aloha"}, {"gym_aloha", "dm_control", "renderer"}),
        ({"type": "metaworld"}, {"metaworld", "renderer"}),
        ({"type": "push"}, {"push"}),
        ({"type": "twin"}, {"twin", "renderer"}),
        ({"type": "twin", "cameras": []}, {"twin"}),
        ({"type": "push", "camera": True}, {"push", "renderer"}),
        ({"type": "gym", "env_id": "Pendulum-v1"}, {"gymnasium"}),
    ],
)
def test_every_simulator_says_what_decides_its_episodes(keys: dict[str, Any], known: set[str]) -> None:
    with made(**keys) as robot:
        assert set(robot.spec.details) == known
        assert all(value for value in robot.spec.details.values())
        assert "cannot draw" not in robot.spec.details.get("renderer", "")
