"""A wheel of this tree in a bare environment: one importable name, no torch, and the examples run in any folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PLUGIN = "lerobot_policy_tactus"
SOURCES = ("tactus", "hal", "policies", "runtime", PLUGIN, "build_backend.py", "pyproject.toml", "README.md", "LICENSE")
OURS = ("hal", "policies", "runtime")
BUILD = "import sys, build_backend; getattr(build_backend, sys.argv[2])(sys.argv[1])"

pytestmark = pytest.mark.slow


def output(*command: str | Path, folder: Path) -> str:
    """What it prints. Nothing of this environment's paths reaches it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    out = subprocess.run([*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools takes in what an earlier build has left beside the sources."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, tree / name)
    output(sys.executable, "-c", BUILD, tree / "dist", "build_wheel", folder=tree)
    [built] = (tree / "dist").glob("*.whl")
    return built


def needed(name: str, found: set[str]) -> set[str]:
    """The distributions that one needs without extras, and those need, as installed in this environment."""
    for line in importlib.metadata.requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name not in found:
            found.add(requirement.name)
            needed(requirement.name, found)
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the wheel and what it requires, and nothing else: that is linked in from this one, so that
    no registry is asked."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    installed = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-index",
        "--no-deps",
        "--quiet",
        wheel,
    ]
    output(*installed, folder=folder)
    required = set()
    with zipfile.ZipFile(wheel) as archive:
        [about] = [name for name in archive.namelist() if name.endswith("METADATA")]
        for line in archive.read(about).decode().splitlines():
            if line.startswith("Requires-Dist: ") and "extra ==" not in line:
                name = Requirement(line.removeprefix("Requires-Dist: ")).name
                required |= needed(name, {name})
    links = folder / "required"
    links.mkdir()
    for name in required:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (links / top).exists():
                (links / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "required.pth").write_text(f"{links}\n")
    return python


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of somebody's own, with folders that are called as our rooms are."""
    for name in OURS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not this one')\n")
    for example in ("own_robot.py", "own_policy.py"):
        shutil.copy(ROOT / "examples" / example, tmp_path)
    return tmp_path


def test_one_name_is_installed_and_all_that_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "tactus",
        PLUGIN,
        f"{PLUGIN}-{importlib.metadata.version('tactus')}.egg-info",
    }
    tracked = subprocess.run(["git", "ls-files", *OURS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {f"tactus/{file}" for file in tracked.splitlines() if (ROOT / file).exists()}
    unneeded = {name for name in wanted if name.endswith((".md", ".gitignore"))}
    assert wanted - unneeded <= names, sorted(wanted - unneeded - names)
    assert {"tactus/py.typed", "tactus/testing.py"} <= names


FOUND = """
from lerobot.configs import PreTrainedConfig
from lerobot.utils.import_utils import register_third_party_plugins
register_third_party_plugins()
print(PreTrainedConfig.get_choice_class("tactus").__module__)
"""


def test_lerobot_finds_its_plugin_in_what_is_installed(wheel: Path, tmp_path: Path) -> None:
    """As LeRobot looks for it: by the name of a distribution."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n{FOUND}"
    assert output(sys.executable, "-c", code, folder=tmp_path).strip().splitlines()[-1].endswith("configuration_tactus")


def test_the_plugin_comes_and_goes_with_the_package(python: Path, wheel: Path, tmp_path: Path) -> None:
    """And is there for an editable install, whose wheel is built otherwise."""
    code = f"from importlib.metadata import version; print(version({PLUGIN!r}))"
    assert output(python, "-c", code, folder=tmp_path).strip() == importlib.metadata.version("tactus")
    tree = wheel.parent.parent
    output(sys.executable, "-c", BUILD, tree / "editable", "build_editable", folder=tree)
    [editable] = (tree / "editable").glob("*.whl")
    with zipfile.ZipFile(editable) as archive:
        [about] = [name for name in archive.namelist() if name.endswith("egg-info/PKG-INFO")]
        [record] = [name for name in archive.namelist() if name.endswith("/RECORD")]
        assert about in archive.read(record).decode()


def test_without_extras_there_is_no_torch_and_help_is_given(python: Path, elsewhere: Path) -> None:
    assert "run" in output(python.parent / "tactus", "--help", folder=elsewhere)
    assert "--robot.type" in output(python.parent / "tactus", "run", "--help", folder=elsewhere)
    code = "import sys; from tactus.runtime.commands import main; main(['--help']); print('torch' in sys.modules)"
    assert output(python, "-c", code, folder=elsewhere).splitlines()[-1] == "False"
    assert "None" in output(
        python, "-c", "import importlib.util; print(importlib.util.find_spec('torch'))", folder=elsewhere
    )


def test_the_examples_run_beside_folders_called_as_our_rooms(python: Path, elsewhere: Path) -> None:
    endpoint = f"ipc://{elsewhere}/node"
    tactus = python.parent / "tactus"
    serve = [tactus, "serve", "--policy.type=own_policy:HomingConfig", f"--connect={endpoint}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    node = subprocess.Popen([*map(str, serve)], cwd=elsewhere, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert node.stdout is not None and endpoint in node.stdout.readline()
        keys = ["--robot.type=own_robot:CartConfig", "--episodes=2", f"--connect={endpoint}", "--output_dir=out"]
        output(tactus, "run", *keys, folder=elsewhere)
    finally:
        node.terminate()
        assert node.wait(timeout=30) == 0
    assert json.loads((elsewhere / "out" / "summary.json").read_text())["successes"] == 2


def test_somebodys_own_type_checker_and_tests_find_what_is_public(python: Path, elsewhere: Path) -> None:
    code = "import tactus; print(all(getattr(tactus, name) for name in tactus.__all__), tactus.__file__)"
    shown = output(python, "-c", code, folder=elsewhere)
    assert shown.startswith("True") and str(python.parents[1]) in shown
