"""The generated LIBERO assets: the same bytes every time, valid MJCF, and real LIBERO runs on them."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tactus.hal.libero.primitive.pack import COVERED_SUITES, write_pack

pytestmark = pytest.mark.slow

PACK_LIMIT_BYTES = 1_000_000

# Body mass in kg of LIBERO's own objects, as robosuite compiles them.
MASS_KG = {
    "alphabet_soup": 0.02588,
    "milk": 0.03168,
    "basket": 0.13612,
    "akita_black_bowl": 0.00558,
    "plate": 0.01154,
}

SETTLE = """
import sys
from pathlib import Path

import libero.libero as library
import numpy as np
import torch

pack, root, suite, size = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
library._assets_path_cache = pack
from libero.libero import benchmark
from libero.libero.envs import OffScreenRenderEnv

task = benchmark.get_benchmark_dict()[suite]().get_task(0)
bddl = root / "bddl_files" / task.problem_folder / task.bddl_file
env = OffScreenRenderEnv(bddl_file_name=str(bddl), camera_heights=64, camera_widths=64)
states = torch.load(root / "init_files" / task.problem_folder / task.init_states_file, weights_only=False)
env.seed(0)
env.reset()
env.set_init_state(states[0])
model, data = env.sim.model._model, env.sim.data._data
assert model.nq == size, (model.nq, size)
assert 1 + model.nq + model.nv == states.shape[1], (model.nq, model.nv, states.shape)
bodies = env.env.obj_body_id
heights = {name: data.xpos[body][2] for name, body in bodies.items()}
for tick in range(30):
    observation, *_ = env.step([0] * 6 + [-1])
    if tick == 20:
        resting = {name: data.xpos[body].copy() for name, body in bodies.items()}
assert np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all()
assert not any(warning.number for warning in data.warning), [warning.number for warning in data.warning]
for name, body in bodies.items():
    moved_m = np.linalg.norm(data.xpos[body] - resting[name])
    assert moved_m < 0.001, (name, moved_m)
    # LIBERO's initial states let objects drop by up to 72 mm onto what carries them.
    assert heights[name] - data.xpos[body][2] < 0.1, name
assert not env.check_success()
assert observation["agentview_image"].std() > 10, "the picture is blank"
env.close()
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("libero") / "pack"
    write_pack(directory)
    return directory


def models(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.xml"))


def digests(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_packs_are_the_same_bytes(pack: Path, tmp_path: Path) -> None:
    write_pack(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(pack)


def test_pack_is_small(pack: Path) -> None:
    assert sum(path.stat().st_size for path in pack.rglob("*") if path.is_file()) < PACK_LIMIT_BYTES


def test_every_texture_a_model_names_is_in_the_pack(pack: Path) -> None:
    for path in models(pack):
        for texture in ET.parse(path).getroot().iterfind("asset/texture[@file]"):
            assert (path.parent / texture.attrib["file"]).is_file(), f"{path}: {texture.attrib['file']}"


def test_seen_geoms_neither_touch_nor_weigh(pack: Path) -> None:
    for path in models(pack):
        for geom in ET.parse(path).getroot().iter("geom"):
            if geom.get("group") == "1" and geom.get("name") not in ("floor", "base_vis"):
                assert (geom.get("contype"), geom.get("conaffinity")) == ("0", "0"), path


def test_every_model_compiles(pack: Path) -> None:
    mujoco = pytest.importorskip("mujoco")
    assert models(pack)
    for path in models(pack):
        mujoco.MjModel.from_xml_path(str(path))


@pytest.mark.parametrize("name", MASS_KG)
def test_mass_is_the_original_object_s(pack: Path, name: str) -> None:
    mujoco = pytest.importorskip("mujoco")
    [path] = pack.rglob(f"{name}.xml")
    model = mujoco.MjModel.from_xml_path(str(path))
    assert model.body_mass.sum() == pytest.approx(MASS_KG[name], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "size"), [("libero_object", 58), ("libero_spatial", 48), ("libero_goal", 41)])
def test_libero_settles_on_the_pack(pack: Path, tmp_path: Path, suite: str, size: int) -> None:
    """In a subprocess, because LIBERO keeps its asset folder in a global."""
    assert suite in COVERED_SUITES
    spec = importlib.util.find_spec("libero")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("LIBERO is not installed")
    root = Path(next(iter(spec.submodule_search_locations))) / "libero"
    folders = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": tmp_path,
        "assets": pack,
    }
    (tmp_path / "config.yaml").write_text("".join(f"{key}: {folder}\n" for key, folder in folders.items()))
    environment = {"MUJOCO_GL": "egl", **os.environ, "LIBERO_CONFIG_PATH": str(tmp_path)}
    environment.setdefault("PYOPENGL_PLATFORM", environment["MUJOCO_GL"])
    command = [sys.executable, "-c", SETTLE, str(pack), str(root), suite, str(size)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr[-2000:]
