"""Every key of a served checkpoint does something, or is refused with a sentence: none is taken and forgotten."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch

from tactus.hal.spec import Observation
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.lerobot.weights import CheckpointError
from tactus.policies.policy import Prefix, Request, Session

pytestmark = pytest.mark.slow

CAMERA = "observation.images.image"
OTHER = "observation.images.other"
BOTH = {CAMERA: (64, 64), OTHER: (64, 64)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    checkpoints.act(root / "act", images={}, environment_state=4)
    checkpoints.vqbet(root / "vqbet")
    checkpoints.diffusion(root / "diffusion", images={}, environment_state=4)
    checkpoints.smolvla(root / "smolvla", images=BOTH)
    checkpoints.smolvla(root / "another", images=BOTH, seed=1)
    return {folder.name: folder for folder in root.iterdir()}


def observable(folder: Path, **keys: Any) -> dict[str, Any]:
    """What anybody could see of a policy: spec, threads, and the chunks it gives, free and guided."""
    torch.set_num_threads(2)
    ours: Any = LeRobotConfig(**{"path": str(folder), **keys}).make()
    seen = {"spec": ours.spec.to_dict(), "max_batch": ours.max_batch, "threads": torch.get_num_threads()}
    torch.set_num_threads(1)
    random = np.random.default_rng(1)
    lead = (len(ours.spec.observation_offsets),) if len(ours.spec.observation_offsets) > 1 else ()
    arrays = {
        name: random.integers(0, 256, (*lead, *f.shape)).astype(f.dtype)
        if f.is_image
        else random.normal(size=(*lead, *f.shape)).astype(f.dtype)
        for name, f in sorted(ours.spec.inputs.items(), key=lambda item: (item[1].is_image, item[0]))
    }
    ours.reset(Session("a", 3, ""))
    request = Request("a", Observation(arrays, {}, 0, "put it there"))
    [chunk] = ours.infer([request])
    seen["free"] = chunk.actions.tolist()
    if ours.spec.takes_prefix:
        prefix = Prefix(np.full((8, *ours.spec.action.shape), 2, np.float32), 3)
        [chunk] = ours.infer([dataclasses.replace(request, prefix=prefix)])
        seen["guided"] = chunk.actions.tolist()
    return seen


Given = tuple[str, Any, str]
"""(checkpoint, value, "" if it changes something that can be seen, else a part of the refusal)"""
KEYS: dict[str, list[Given]] = {
    "path": [("smolvla", "another", ""), ("act", "/no/such/place", "no directory")],
    "revision": [("act", "main", "policy.revision: .* is a directory here")],
    "device": [("act", "cuda:7", "policy.device: 'cuda:7' cannot be used"), ("act", "nonsense", "cannot be used")],
    "dtype": [("act", "bfloat16", ""), ("smolvla", "bfloat16", "")],
    "compile": [("vqbet", "default", "policy.compile: vqbet runs eagerly only")],
    "max_batch": [("act", 3, "")],
    "threads": [("act", 1, "")],
    "n_action_steps": [
        ("act", 4, ""),
        ("smolvla", 4, ""),
        ("diffusion", 4, ""),
        ("vqbet", 4, ""),
        ("act", 11, "policy.n_action_steps: found 11"),
        ("smolvla", 11, "policy.n_action_steps: found 11"),
        ("diffusion", 16, "policy.n_action_steps: found 16; a chunk of diffusion has 15"),
        ("vqbet", 6, "policy.n_action_steps: found 6; a chunk of vqbet has 5"),
    ],
    "fps": [("act", 20.0, "")],
    "robot": [("act", "an arm", "")],
    "rename": [
        ("smolvla", {"observation.images.front": CAMERA}, ""),
        ("smolvla", {CAMERA: OTHER, OTHER: CAMERA}, ""),
        ("smolvla", {"front": CAMERA, "joints": "observation.state"}, ""),
        ("act", {"joints": "observation.state"}, ""),
        ("smolvla", {"front": "no such"}, "policy.rename: the checkpoint has no no such; it reads"),
        ("smolvla", {"front": CAMERA, "top": CAMERA}, f"the checkpoint's {CAMERA} would stand for two"),
        ("smolvla", {OTHER: CAMERA}, f"the robot's {OTHER} would stand for two"),
    ],
    "empty_cameras": [
        ("smolvla", [OTHER], ""),
        (
            "smolvla",
            ["observation.images.third"],
            "policy.empty_cameras: the checkpoint has no observation.images.third",
        ),
        ("smolvla", [CAMERA, OTHER], "all of .* are left out; at least one must be there"),
        ("smolvla", ["observation.state"], "the checkpoint has no observation.state"),
        ("vqbet", [CAMERA], "policy.empty_cameras: vqbet needs all its cameras"),
    ],
    "tokenizer": [
        ("act", "somewhere", "policy.tokenizer: act .* has no tokenizer"),
        ("smolvla", "/no/such/place", "give a local one with --policy.tokenizer=DIR"),
    ],
    "num_steps": [
        ("smolvla", 1, ""),
        ("diffusion", 3, ""),
        ("act", 1, "policy.num_steps: act does not denoise; leave it out"),
    ],
    "noise_scale": [
        ("smolvla", 0.5, ""),
        ("smolvla", 0.0, ""),
        ("act", 0.0, "policy.noise_scale: found 0, but act starts from no flow noise; smolvla, pi0, pi05 and our own"),
        ("diffusion", 0.5, "policy.noise_scale: found 0.5, but diffusion starts from no flow noise"),
        ("vqbet", 2.0, "policy.noise_scale: found 2, but vqbet starts from no flow noise"),
    ],
    "guidance": [("smolvla", "vjp", ""), ("act", "vjp", "policy.guidance: .*act does not continue chunks")],
    "guidance_schedule": [("smolvla", "ones", ""), ("vqbet", "exp", "policy.guidance_schedule: .*vqbet does not")],
    "max_guidance_weight": [("smolvla", 0.5, ""), ("act", 2.0, "policy.max_guidance_weight: .*act does not")],
    "guidance_horizon": [("smolvla", 4, ""), ("diffusion", 4, "policy.guidance_horizon: .*diffusion does not")],
    "overrides": [
        ("smolvla", {"num_steps": 5}, ""),
        ("diffusion", {"num_inference_steps": 5}, ""),
        ("diffusion", {"n_action_steps": 3}, ""),
        ("act", {"n_action_steps": 1, "temporal_ensemble_coeff": 0.1}, ""),
        ("smolvla", {"resize_imgs_with_padding": [32, 32]}, ""),
        ("smolvla", {"num_steps": 5, "optimizer_lr": 1e-3}, "optimizer_lr: would change nothing here"),
        ("smolvla", {"tokenizer_max_length": 9}, "tokenizer_max_length: would change nothing here"),
        ("act", {"dropout": 0.9}, "dropout: would change nothing"),
        ("act", {"push_to_hub": True}, "push_to_hub: would change nothing"),
        ("act", {"device": "cpu"}, "device is decided by policy.device"),
        ("smolvla", {"rtc_config": {"enabled": True}}, "rtc_config is decided by policy.guidance"),
        ("act", {"chunk_sise": 3}, "the config of act has no 'chunk_sise'; it has chunk_size"),
        ("act", {"type": "diffusion"}, "has no 'type'"),
        ("act", {"use_vae": "perhaps"}, "policy.overrides: .*use_vae"),
        ("act", {"normalization_mapping": {"ACTION": "MIN_MAX"}}, "normalization_mapping: asked for .*, it is "),
        (
            "act",
            {"normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MIN_MAX"}},
            "normalization_mapping: would change nothing here",
        ),
        (
            "smolvla",
            {"input_features": {CAMERA: {"type": "VISUAL", "shape": [3, 64, 64]}}},
            r"input_features: asked for .*policy\.rename, .*policy\.empty_cameras",
        ),
        ("act", {"input_features": {}}, r"input_features: asked for \{\}, it is .*observation.state"),
        ("act", {"input_features": None}, "input_features: asked for null"),
        ("act", {"output_features": {"action": {"type": "ACTION", "shape": [3]}}}, "postprocessor|cannot be built"),
        ("act", {"input_features.observation.state.shape": [4]}, "has no 'input_features.observation.state.shape'"),
    ],
}


def test_no_key_is_left_out() -> None:
    assert {*KEYS} == {field.name for field in dataclasses.fields(LeRobotConfig)}


@pytest.mark.parametrize(
    ("key", "kind", "value", "refusal"), [(key, *given) for key, rows in KEYS.items() for given in rows]
)
def test_it_does_something_or_is_refused(
    folders: dict[str, Path], key: str, kind: str, value: Any, refusal: str
) -> None:
    if key == "path" and not refusal:
        value = str(folders[value])
    if refusal:
        with pytest.raises(CheckpointError, match=f"(?s){refusal}"):
            observable(folders[kind], **{key: value})
    else:
        assert observable(folders[kind], **{key: value}) != observable(folders[kind])


def test_a_camera_that_is_there_and_not(folders: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=f"{OTHER} is what policy.rename calls a camera of the robot"):
        observable(folders["smolvla"], rename={"front": OTHER}, empty_cameras=[OTHER])


def test_two_words_for_one_thing(folders: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"n_action_steps is given by policy\.n_action_steps as well"):
        observable(folders["act"], n_action_steps=4, overrides={"n_action_steps": 4})

    with pytest.raises(CheckpointError, match=r"policy\.num_steps: policy\.overrides gives num_steps too"):
        observable(folders["smolvla"], num_steps=1, overrides={"num_steps": 5})


def test_guidance_of_a_compiled_policy(folders: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"policy\.guidance: found vjp, but a compiled policy"):
        observable(folders["smolvla"], guidance="vjp", compile="default")


def test_a_config_without_inputs_or_actions(tmp_path: Path) -> None:
    checkpoints.act(tmp_path / "act", images={}, environment_state=4)
    file = tmp_path / "act" / "config.json"
    whole = json.loads(file.read_text())
    for key in ("input_features", "output_features"):
        for value in (None, {}):
            file.write_text(json.dumps({**whole, key: value}))
            with pytest.raises(CheckpointError, match="lists no inputs, or no action"):
                observable(tmp_path / "act")
