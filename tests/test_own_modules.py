"""A checkpoint built from the modules it names is what LeRobot's whole package builds, and LeRobot stays whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import checkpoints
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
KINDS: dict[str, Callable[[Path], Path]] = {
    "act": checkpoints.act,
    "act_vectors": lambda folder: checkpoints.act(folder, images={}, environment_state=14),
    "diffusion": checkpoints.diffusion,
    "vqbet": checkpoints.vqbet,
    "smolvla": checkpoints.smolvla,
    "pi0": checkpoints.pi0,
    "keypoints": checkpoints.keypoints,
}
NOT_FOR_ACT = (
    "transformers",
    "pandas",
    "datasets",
    "accelerate",
    "lerobot.datasets",
    "lerobot.motors",
    "lerobot.processor.tokenizer_processor",
    "lerobot.policies.diffusion.modeling_diffusion",
    "lerobot.policies.fastwam.modeling_fastwam",
    "lerobot.policies.groot.modeling_groot",
    "lerobot.policies.pi0.configuration_pi0",
    "lerobot.policies.smolvla.modeling_smolvla",
)

BUILD = """
import contextlib, hashlib, json, sys
import numpy as np
import checkpoints
import tactus.policies.lerobot.own_modules as own_modules
from tactus.hal.spec import Observation
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.policy import Request, Session

order, folder = sys.argv[1:3]
config = LeRobotConfig(path=folder, threads=1)
if order == "whole":
    import lerobot.policies
    from tactus.policies.lerobot.policy import LeRobotPolicy as build
else:
    build = type(config).make
with own_modules.only_what_is_asked_for() if order == "own" else contextlib.nullcontext():
    with checkpoints.tiny_pi0() if folder.endswith("pi0") else contextlib.nullcontext():
        policy = build(config)
loaded = [*sys.modules]

def seen(seed, tick):
    random = np.random.default_rng(seed)
    arrays = {}
    ticks = len(policy.spec.observation_offsets)
    for name, feature in policy.spec.inputs.items():
        shape = feature.shape if ticks == 1 else (ticks, *feature.shape)
        values = random.integers(0, 256, shape) if feature.is_image else random.uniform(-1, 1, shape)
        arrays[name] = values.astype(feature.dtype)
    return Observation(arrays, {}, tick, "pick up the milk")

policy.reset(Session("a", 7, "pick up the milk"))
chunks = [policy.infer([Request("a", seen(seed, seed))])[0].actions for seed in range(2)]
about = {
    "digest": hashlib.sha256(b"".join(chunk.tobytes() for chunk in chunks)).hexdigest(),
    "moved": float(np.abs(chunks[0] - chunks[1]).max()),
    "inputs": [*policy.spec.inputs],
    "loaded": loaded,
}
"""
AFTERWARDS = """
import lerobot.policies
from lerobot.configs import PreTrainedConfig
from lerobot.processor import ProcessorStepRegistry
import lerobot.processor, lerobot.robots, lerobot.teleoperators
about["types"] = sorted(PreTrainedConfig.get_known_choices())
about["steps"] = sorted(ProcessorStepRegistry.list())
about["names"] = [name for name in lerobot.policies.__all__ if not hasattr(lerobot.policies, name)]
about["modules"] = sorted(name for name in sys.modules if name.startswith("lerobot."))
about["left"] = [str(finder) for finder in sys.meta_path if type(finder).__module__.startswith("tactus")]
about["left"] += [name for name, module in sys.modules.items() if type(module) is own_modules._Package]
about["attributes"] = [
    name for name in about["modules"] if not hasattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2])
]
about["same"] = lerobot.policies.get_policy_class(policy._config.type).__module__
"""
TELL = "print(json.dumps(about))"


def run(code: str, *arguments: str) -> dict[str, Any]:
    """What a fresh Python prints last, as JSON."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def some(every: Iterable[str], *quick: str) -> list[Any]:
    """All of them; only `quick` outside of long runs, since each needs processes that import LeRobot whole."""
    return [pytest.param(one, marks=() if one in quick else pytest.mark.long) for one in every]


@pytest.mark.parametrize("kind", some(KINDS))
def test_it_predicts_the_bits_of_the_ordinary_import_order(kind: str, tmp_path: Path) -> None:
    folder = str(KINDS[kind](tmp_path / kind))
    whole, own = (run(BUILD + AFTERWARDS + TELL, order, folder) for order in ("whole", "own"))
    assert own["digest"] == whole["digest"] and own["moved"] == whole["moved"] > 0
    assert own["inputs"] == whole["inputs"] and own["left"] == []
    for what in ("types", "steps", "names", "modules", "same", "attributes"):
        assert own[what] == whole[what], what
    assert own["names"] == [] and len(own["loaded"]) < len(whole["loaded"])
    if kind.startswith("act"):
        assert [name for name in NOT_FOR_ACT if name in own["loaded"]] == []
        assert [name for name in NOT_FOR_ACT if name not in whole["loaded"]] == [], "and the ordinary order has them"


LATER = {
    "its factory": "from lerobot.policies.factory import make_policy_config\nmake_policy_config('pi0')",
    "another's network": "from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy",
    "another's package": "from lerobot.policies.vqbet import VQBeTPolicy, make_vqbet_pre_post_processors",
    "a step": "from lerobot.processor import TokenizerProcessorStep, ProcessorStepRegistry\n"
    "assert ProcessorStepRegistry.get('tokenizer_processor') is TokenizerProcessorStep",
    "a module as an attribute": "import lerobot.policies.act.modeling_act as found\nassert found.ACTPolicy\n"
    "import lerobot.policies\nassert lerobot.policies.act.modeling_act is found",
    "a name of a package": "from lerobot import policies, processor\n"
    "assert policies.VQBeTConfig and processor.TokenizerProcessorStep",
    "a second checkpoint": "assert type(config).make(config).spec == policy.spec",
    "a robot": "import lerobot.robots, lerobot.teleoperators\nassert lerobot.robots.Robot",
    "another checkpoint": "from lerobot.policies import get_policy_class, make_pre_post_processors\n"
    "from lerobot.configs import PreTrainedConfig\n"
    "config = PreTrainedConfig.from_pretrained(sys.argv[3])\n"
    "get_policy_class(config.type).from_pretrained(sys.argv[3], config=config)\n"
    "make_pre_post_processors(config, pretrained_path=sys.argv[3])",
}


@pytest.mark.parametrize("what", some(LATER))
def test_lerobot_can_be_used_afterwards(what: str, tmp_path: Path) -> None:
    folder = checkpoints.act(tmp_path / "act", images={}, environment_state=3)
    other = checkpoints.smolvla(tmp_path / "smolvla") if "sys.argv[3]" in LATER[what] else folder
    run("\n".join([BUILD, LATER[what], TELL]), "own", str(folder), str(other))


def with_step(folder: Path, step: dict[str, Any]) -> Path:
    """The checkpoint with one more step at the end of its preprocessor."""
    file = folder / "policy_preprocessor.json"
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({**saved, "steps": [*saved["steps"], step]}))
    return folder


STEPS = {
    "of lerobot.processor": {"registry_name": "smolvla_new_line_processor", "config": {}},
    "of a module that is imported late": {"registry_name": "time_limit_processor", "config": {"max_episode_steps": 9}},
    "of another policy": {"registry_name": "xvla_add_domain_id", "config": {}},
    "by its class": {
        "class": "lerobot.processor.newline_task_processor.NewLineTaskProcessorStep",
        "config": {},
    },
}


@pytest.mark.parametrize("step", some(STEPS))
def test_steps_from_elsewhere_are_found(step: str, tmp_path: Path) -> None:
    folder = with_step(checkpoints.act(tmp_path / "act"), STEPS[step])
    whole, own = (run(BUILD + TELL, order, str(folder)) for order in ("whole", "own"))
    assert own["digest"] == whole["digest"]


MINE = """
from dataclasses import dataclass
from lerobot.configs import PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig
@PreTrainedConfig.register_subclass("mine")
@dataclass
class MineConfig(ACTConfig):
    pass
"""
MY_MODEL = """
from configuration_mine import MineConfig
from lerobot.policies.act.modeling_act import ACTPolicy
class MinePolicy(ACTPolicy):
    config_class, name = MineConfig, "mine"
"""


@pytest.mark.long
def test_a_type_of_ones_own(tmp_path: Path) -> None:
    """As before: whoever registers a type imports it."""
    (tmp_path / "configuration_mine.py").write_text(MINE)
    (tmp_path / "modeling_mine.py").write_text(MY_MODEL)
    folder = checkpoints.act(tmp_path / "checkpoint")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "type": "mine"}))
    first = f"import sys; sys.path.append({str(tmp_path)!r})\n"
    whole = run(f"{first}import configuration_mine\n{BUILD}{TELL}", "whole", str(folder))
    own = run(f"{first}import configuration_mine\n{BUILD}{TELL}", "own", str(folder))
    assert own["digest"] == whole["digest"]
