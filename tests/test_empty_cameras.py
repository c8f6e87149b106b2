"""A policy of three cameras on a robot with two: LeRobot's prediction to the bit, and what a refused robot is told."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
import yaml
from conftest import Serve

from tactus.hal.spec import STATE, Feature, Observation, RobotSpec, image
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.policy import Request, Session
from tactus.runtime.wire.handshake import mismatches
from tactus.runtime.wire.link import Link, Refused

pytestmark = pytest.mark.slow

CAMERAS = [f"observation.images.camera{i}" for i in (1, 2, 3)]
SIZE = (56, 56)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    root = tmp_path_factory.mktemp("checkpoints")
    images = dict.fromkeys(CAMERAS, SIZE)
    with checkpoints.tiny_pi0():
        checkpoints.smolvla(root / "smolvla", images=images, state=3, action=3)
        checkpoints.pi0(root / "pi0", images=images, state=3, action=3)
        checkpoints.act(root / "act", images=images, state=3, action=3)
        yield {folder.name: folder for folder in root.iterdir()}


def policy(folder: Path, **keys: Any) -> Any:
    return LeRobotConfig(path=str(folder), threads=1, **keys).make()


def arrays(names: list[str]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    found: dict[str, np.ndarray] = {STATE: random.normal(size=3).astype(np.float32)}
    return found | {name: random.integers(0, 256, (*SIZE, 3), np.uint8) for name in names}


def lerobots(folder: Path, seen: dict[str, np.ndarray], *overrides: str) -> np.ndarray:
    """What LeRobot itself predicts from a batch without the absent cameras."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies import get_policy_class, make_pre_post_processors

    config: Any = PreTrainedConfig.from_pretrained(folder, cli_overrides=["--device=cpu", *overrides])
    model: Any = get_policy_class(config.type).from_pretrained(folder, config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(folder))
    batch: dict[str, Any] = {"task": ["put it there"]}
    for name, array in seen.items():
        tensor = torch.from_numpy(array)[None]
        batch[name] = tensor.permute(0, 3, 1, 2).contiguous().float() / 255 if tensor.ndim == 4 else tensor
    torch.manual_seed(11)
    with torch.inference_mode():
        return after(model.predict_action_chunk(before(batch)))[0].numpy()


@pytest.mark.parametrize("absent", [[2], [0], [1, 2], [0, 1]])
@pytest.mark.parametrize("kind", ["smolvla", "pi0"])
def test_it_is_lerobots_prediction(folders: dict[str, Path], kind: str, absent: list[int]) -> None:
    torch.set_num_threads(1)
    gone = [CAMERAS[i] for i in absent]
    seen = arrays([name for name in CAMERAS if name not in gone])
    ours = policy(folders[kind], empty_cameras=gone)
    assert {*ours.spec.inputs} == {*seen} and ours.spec.details["empty_cameras"] == ", ".join(gone)
    ours.reset(Session("a", 11, ""))
    [chunk] = ours.infer([Request("a", Observation(seen, {}, 0, "put it there"))])
    # SmolVLA's own key says how many it fills in; PI0 fills in all
    overrides = [f"--empty_cameras={len(gone)}"] if kind == "smolvla" else []
    np.testing.assert_array_equal(chunk.actions, lerobots(folders[kind], seen, *overrides))


def robot(*cameras: str, state: str = STATE) -> RobotSpec:
    vector = Feature((3,), "float32")
    return RobotSpec("arm", 30.0, {state: vector, **dict.fromkeys(cameras, image(*SIZE))}, vector)


def flags(reasons: list[str]) -> dict[str, Any]:
    """The keys that a refusal proposes, as the command line would read them."""
    found = re.findall(r"--policy\.(\w+)='([^']*)'", " ".join(reasons))
    return {key: yaml.safe_load(value) for key, value in found}


FRONT, WRIST, TOP = (f"observation.images.{name}" for name in ("front", "wrist", "top"))
ROBOTS: list[tuple[RobotSpec, dict[str, Any], set[str]]] = [
    (robot(CAMERAS[0], CAMERAS[1]), {}, {"empty_cameras"}),
    (robot(FRONT, WRIST), {}, {"rename", "empty_cameras"}),
    (robot(FRONT, WRIST, TOP), {}, {"rename"}),
    (robot(*CAMERAS, state="joints"), {}, {"rename"}),
    (robot(CAMERAS[0], WRIST), {}, {"rename", "empty_cameras"}),
    (robot(FRONT, WRIST, TOP), {"rename": {FRONT: CAMERAS[1]}}, {"rename"}),
    (robot(FRONT, WRIST), {"rename": {FRONT: CAMERAS[1], "no": CAMERAS[0]}}, {"rename", "empty_cameras"}),
]


@pytest.mark.parametrize("number", range(len(ROBOTS)))
@pytest.mark.parametrize("kind", ["smolvla", "pi0"])
def test_what_a_refusal_proposes_is_accepted(folders: dict[str, Path], kind: str, number: int) -> None:
    arm, keys, proposed = ROBOTS[number]
    reasons = mismatches(arm, policy(folders[kind], **keys).spec)
    found = flags(reasons)
    assert {*found} == proposed, reasons
    assert mismatches(arm, policy(folders[kind], **(keys | found)).spec) == []


def test_a_policy_that_needs_all_its_cameras_is_not_told_to_leave_one_out(folders: dict[str, Path]) -> None:
    reasons = mismatches(robot(FRONT, CAMERAS[1]), policy(folders["act"]).spec)
    assert {*flags(reasons)} == {"rename"}
    assert flags(mismatches(robot(), policy(folders["smolvla"]).spec)) == {}, "one camera must be there"


def test_the_robot_is_told(folders: dict[str, Path], serve: Serve) -> None:
    link = Link(serve(policy(folders["smolvla"])).endpoint)
    with contextlib.closing(link), pytest.raises(Refused) as caught:
        link.hello(robot(FRONT, WRIST), 10)
    said = str(caught.value)
    assert f"--policy.rename='{{{FRONT}: {CAMERAS[0]}, {WRIST}: {CAMERAS[1]}}}'" in said
    assert f"--policy.empty_cameras='[{CAMERAS[2]}]'" in said
