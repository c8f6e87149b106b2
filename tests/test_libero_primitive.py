"""The generated LIBERO assets: the same bytes every time, valid MJCF, and real LIBERO runs on them."""

import hashlib
import importlib.util
import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tactus.hal.libero.primitive import bake
from tactus.hal.libero.primitive.pack import COVERED_SUITES, write_pack
from tactus.hal.libero.primitive.panda import LOOKS, MODELS, dress

pytestmark = pytest.mark.slow

PACK_LIMIT_BYTES = 2_000_000

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

# 100 steps that push the object about; then everything that physics reads of the model, and every state, as one line.
STEPS = """
import hashlib, sys, warnings
import numpy as np
from tactus.hal.libero import LiberoConfig

warnings.simplefilter("ignore")
suite, task, assets = sys.argv[1], int(sys.argv[2]), sys.argv[3]
robot = LiberoConfig(suite=suite, tasks=[task], assets=assets, cameras=[]).make()
robot.reset(0, 0)
model, data = robot._env.sim.model._model, robot._env.sim.data._data
touching = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
names = ("geom_type", "geom_size", "geom_friction", "geom_solref", "geom_solimp", "geom_bodyid", "geom_condim")
read = [getattr(model, name)[touching] for name in names]
read += [model.body_mass, model.body_inertia, model.body_ipos, model.body_iquat, model.dof_armature, model.jnt_range]
digest, moves, contacts = hashlib.sha256(), np.random.default_rng(3), 0
for array in read:
    digest.update(np.ascontiguousarray(array).tobytes())
for _ in range(100):
    action = moves.uniform(-1, 1, 7).astype(np.float32)
    away = robot.observe().arrays["observation.environment_state"][:3] - robot.observe().arrays["observation.state"][:3]
    action[:3] = np.clip(10 * away + 0.3 * action[:3], -1, 1)
    robot.act(action)
    contacts += data.ncon
    digest.update(robot.sim_state.tobytes())
print(digest.hexdigest(), int(touching.sum()), contacts, int((model.geom_group == 1).sum()))
"""

# Every model of two packs from three sides: how many grey levels they differ, on average over what is seen of either.
SIDES = """
import sys
from pathlib import Path
import mujoco
import numpy as np

first, second = map(Path, sys.argv[1:3])
for path in sorted(first.glob("*objects/**/*.xml")):
    pictures = []
    for pack in (first, second):
        spec = mujoco.MjSpec.from_file(str(pack / path.relative_to(first)))
        spec.worldbody.add_light(pos=[1, 1, 2], dir=[-1, -1, -2])
        model = spec.compile()
        model.site_rgba[:, 3] = 0
        data, camera = mujoco.MjData(model), mujoco.MjvCamera()
        mujoco.mj_forward(model, data)
        with mujoco.Renderer(model, 200, 200) as renderer:
            for side in range(3):
                camera.azimuth, camera.elevation, camera.distance = 30 + 120 * side, (-50, 10, -20)[side], 0.5
                renderer.update_scene(data, camera)
                pictures.append(renderer.render().astype(int))
    before, after = np.array(pictures[:3]), np.array(pictures[3:])
    seen = (before.max(axis=3) > 0) | (after.max(axis=3) > 0)
    assert seen.sum() > 300, path
    print(path.stem, np.abs(before - after)[seen].mean())
"""


def run(code: str, *words: object) -> list[list[str]]:
    """The words of each line that a process of its own prints: LIBERO keeps its asset folder in a global."""
    environment = {"MUJOCO_GL": "egl", **os.environ}
    environment.setdefault("PYOPENGL_PLATFORM", environment["MUJOCO_GL"])
    command = [sys.executable, "-c", code, *map(str, words)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return [line.split() for line in finished.stdout.splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack as it would be without meshes: every shape by itself, and robosuite's own robot."""
    directory = tmp_path_factory.mktemp("libero") / "plain"
    write_pack(directory, fast=False)
    return directory


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


@pytest.mark.long
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
@pytest.mark.parametrize(
    ("suite", "size"),
    [
        ("libero_object", 58),
        pytest.param("libero_spatial", 48, marks=pytest.mark.long),
        pytest.param("libero_goal", 41, marks=pytest.mark.long),
    ],
)
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


@pytest.mark.parametrize(
    ("suite", "task"),
    [
        pytest.param("libero_object", 3, marks=pytest.mark.long),
        pytest.param("libero_spatial", 4, marks=pytest.mark.long),
        pytest.param("libero_goal", 0, marks=pytest.mark.long),
    ],
)
def test_looks_leave_the_physics_as_it_is(pack: Path, plain: Path, suite: str, task: int) -> None:
    """To the bit: what touches and weighs, and the states of 100 steps with contacts."""
    [own], [theirs] = run(STEPS, suite, task, pack), run(STEPS, suite, task, plain)
    assert own[:3] == theirs[:3] and int(own[2]) > 100
    assert int(own[3]) < int(theirs[3]) / 2, "the pack's looks are in use"


@pytest.mark.long
def test_objects_look_as_their_shapes_do(pack: Path, plain: Path) -> None:
    differences = {name: float(grey) for name, grey in run(SIDES, plain, pack)}
    assert len(differences) > 15
    assert {name: grey for name, grey in differences.items() if grey > 4} == {}


@pytest.mark.parametrize(
    ("kind", "size", "volume"),
    [
        ("box", (0.1, 0.2, 0.3), 8 * 0.1 * 0.2 * 0.3),
        ("cylinder", (0.1, 0.3), math.pi * 0.1**2 * 0.6),
        ("capsule", (0.1, 0.3), math.pi * 0.1**2 * 0.6 + 4 / 3 * math.pi * 0.1**3),
        ("ellipsoid", (0.1, 0.2, 0.3), 4 / 3 * math.pi * 0.1 * 0.2 * 0.3),
    ],
)
def test_a_shape_s_mesh_is_closed_and_faces_outwards(kind: str, size: tuple[float, ...], volume: float) -> None:
    found, edges = 0.0, []
    for polygon in bake.KINDS[kind](np.array(size)):
        places, normals = np.array([place for place, _, _ in polygon]), np.array([normal for _, normal, _ in polygon])
        across = sum(np.cross(a, b) for a, b in zip(places, np.roll(places, -1, axis=0), strict=True)) / 2
        assert (normals @ across > 0).all(), "lit from where it is seen"
        found += across @ places.mean(axis=0) / 3
        rounded = [tuple(place) for place in np.round(places, 6) + 0.0]
        edges += zip(rounded, rounded[1:] + rounded[:1], strict=True)
    assert found == pytest.approx(volume, rel=0.05)
    assert {(b, a) for a, b in edges} == set(edges) and len(set(edges)) == len(edges)


def robosuite_model(name: str) -> ET.Element:
    """A model of robosuite's with its files by their full paths."""
    spec = importlib.util.find_spec("robosuite")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("robosuite is not installed")
    file = Path(next(iter(spec.submodule_search_locations))) / "models" / "assets" / name
    root = ET.parse(file).getroot()
    for mesh in root.iterfind("asset/mesh"):
        mesh.set("file", str(file.parent / mesh.attrib["file"]))
    return root


def seen_points(model: Any) -> dict[str, list[np.ndarray]]:
    """Corners of the seen meshes of every body, in the body's frame, a float64[n, 3] a mesh."""
    import mujoco

    found: dict[str, list[np.ndarray]] = {}
    for geom in range(model.ngeom):
        mesh = model.geom_dataid[geom]
        if model.geom_group[geom] == 1 and mesh >= 0:
            first, turn = model.mesh_vertadr[mesh], np.zeros(9)
            mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
            corners = model.mesh_vert[first : first + model.mesh_vertnum[mesh]] @ turn.reshape(3, 3).T
            found.setdefault(model.body(model.geom_bodyid[geom]).name, []).append(corners + model.geom_pos[geom])
    return found


def both_looks(pack: Path, name: str) -> tuple[Any, Any]:
    """A model of robosuite's compiled as it is, and dressed as the pack has it."""
    mujoco = pytest.importorskip("mujoco")
    root = robosuite_model(name)
    before = mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))
    dress(root, pack / LOOKS / name)
    return before, mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))


def test_the_robot_has_an_eighth_of_the_faces(pack: Path) -> None:
    counts = [0, 0]
    for name in MODELS:
        for look, model in enumerate(both_looks(pack, name)):
            meshes = [mesh for mesh, group in zip(model.geom_dataid, model.geom_group, strict=True) if group == 1]
            counts[look] += int(sum(model.mesh_facenum[mesh] for mesh in meshes if mesh >= 0))
    assert counts[1] <= counts[0] / 8


@pytest.mark.parametrize("name", MODELS)
def test_every_link_keeps_its_shape_and_its_weight(pack: Path, name: str) -> None:
    before, after = both_looks(pack, name)
    for kept in ("body_mass", "body_inertia", "body_ipos", "jnt_range", "cam_pos", "site_pos"):
        np.testing.assert_array_equal(getattr(after, kept), getattr(before, kept))
    own, theirs = seen_points(after), seen_points(before)
    assert own.keys() == theirs.keys(), "every link has a look"
    for body, meshes in theirs.items():
        corners = np.concatenate(meshes)
        low, high = corners.min(axis=0), corners.max(axis=0)
        margin = 0.1 * (high - low)
        for mesh in own[body]:
            assert (low - margin <= mesh.mean(axis=0)).all() and (mesh.mean(axis=0) <= high + margin).all(), body
        together = np.concatenate(own[body])
        np.testing.assert_allclose([together.min(axis=0), together.max(axis=0)], [low, high], atol=0.01, err_msg=body)
