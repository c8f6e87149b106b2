"""The tiny checkpoints are what they claim: LeRobot itself loads them and gets the same chunk every time."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import checkpoints
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

VECTORS: dict[str, Any] = {"images": {}, "environment_state": 6}
FLOW = ("smolvla", "pi0")


class Kind(NamedTuple):
    """steps: of a chunk that `select_action` executes. backbone: thousands of parameters in resnets; rest: others."""

    write: Callable[[Path], Path]
    steps: int
    rest: int
    backbone: int = 0


KINDS = {
    "act": Kind(lambda folder: checkpoints.act(folder), 10, 49, 11167),
    "act_vectors": Kind(lambda folder: checkpoints.act(folder, **VECTORS), 10, 33),
    "diffusion": Kind(lambda folder: checkpoints.diffusion(folder), 8, 68, 11177),
    "diffusion_vectors": Kind(lambda folder: checkpoints.diffusion(folder, **VECTORS), 8, 56),
    "vqbet": Kind(lambda folder: checkpoints.vqbet(folder), 5, 43, 11177),
    "smolvla": Kind(lambda folder: checkpoints.smolvla(folder), 10, 254),
    "pi0": Kind(lambda folder: checkpoints.pi0(folder), 10, 88),
}


class Loaded(NamedTuple):
    name: str
    folder: Path
    policy: Any
    preprocessor: Any
    postprocessor: Any


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = KINDS[request.param].write(tmp_path_factory.mktemp("checkpoints") / request.param)
    yield load(request.param, folder)
    torch.set_num_threads(threads)


def load(name: str, folder: Path) -> Loaded:
    """As LeRobot does it, with nothing overridden."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies import get_policy_class, make_pre_post_processors

    config: Any = PreTrainedConfig.from_pretrained(folder)
    with checkpoints.tiny_pi0() if config.type == "pi0" else contextlib.nullcontext():
        policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    return Loaded(name, folder, policy, *make_pre_post_processors(config, pretrained_path=str(folder)))


def observe(config: Any, grey_level: int = 0) -> dict[str, Any]:
    """One random observation as lerobot-eval hands it to the preprocessor, one grey level of one pixel flipped."""
    from lerobot.envs.utils import preprocess_observation

    random = np.random.default_rng(5)
    raw: dict[str, Any] = {"agent_pos": random.uniform(-1, 1, (1, 8)), "pixels": {}}
    for name, feature in config.image_features.items():
        pixels = random.integers(0, 256, (1, *feature.shape[1:], 3), np.uint8)
        pixels[0, 20, 30, 1] ^= grey_level
        raw["pixels"][name.removeprefix("observation.images.")] = pixels
    if config.env_state_feature is not None:
        raw["environment_state"] = random.uniform(-1, 1, (1, *config.env_state_feature.shape))
    return {**preprocess_observation(raw), "task": ["pick up the milk"]}


def predict(loaded: Loaded, grey_level: int = 0) -> torch.Tensor:
    """A chunk [1, n_action_steps, A], normalised, from the seeded global generator."""
    policy = loaded.policy
    policy.reset()
    torch.manual_seed(1)
    steps = range(KINDS[loaded.name].steps)
    actions = [policy.select_action(loaded.preprocessor(observe(policy.config, grey_level))) for _ in steps]
    return torch.stack(actions, dim=1)


def test_predicts_the_same_finite_chunk_twice(loaded: Loaded) -> None:
    chunk = loaded.postprocessor(predict(loaded))
    assert chunk.shape == (1, KINDS[loaded.name].steps, 7)
    assert bool(torch.isfinite(chunk).all()) and float(chunk.std(1).min()) > 1e-3
    assert torch.equal(chunk, loaded.postprocessor(predict(loaded)))


def test_sees_one_grey_level_of_one_pixel(loaded: Loaded) -> None:
    seen = not torch.equal(predict(loaded), predict(loaded, grey_level=1))
    assert seen == bool(loaded.policy.config.image_features)


def test_postprocesses_a_chunk_as_it_does_its_steps(loaded: Loaded) -> None:
    chunk = predict(loaded)
    steps = [loaded.postprocessor(step) for step in chunk.unbind(1)]
    assert torch.equal(loaded.postprocessor(chunk), torch.stack(steps, dim=1))


def test_sizes(loaded: Loaded) -> None:
    sizes = {True: 0, False: 0}
    for name, parameter in loaded.policy.named_parameters():
        sizes["backbone" in name] += parameter.numel()
    kind = KINDS[loaded.name]
    assert (round(sizes[False] / 1000), round(sizes[True] / 1000)) == (kind.rest, kind.backbone)


def test_every_weight_comes_from_the_file(loaded: Loaded) -> None:
    """PI0 goes on with random weights when the file does not fit."""
    from safetensors.torch import load_file

    stored, weights = load_file(loaded.folder / "model.safetensors"), loaded.policy.state_dict()
    assert {*weights} == {*stored}
    assert all(torch.equal(weights[name], values) for name, values in stored.items())


def test_every_feature_has_its_own_statistics(loaded: Loaded) -> None:
    from lerobot.processor import NormalizerProcessorStep

    config = loaded.policy.config
    (step,) = (step for step in loaded.preprocessor.steps if isinstance(step, NormalizerProcessorStep))
    for name in {**config.input_features, **config.output_features}:
        for values in step._tensor_stats[name].values():
            assert len(values.unique()) == values.numel() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_every_byte(tmp_path: Path, kind: str) -> None:
    write: Callable[..., Path] = getattr(checkpoints, kind.removesuffix("_vectors"))
    more = VECTORS if kind.endswith("_vectors") else {}
    folders = [write(tmp_path / str(turn), seed=seed, **more) for turn, seed in enumerate((3, 3, 4))]
    weights = [hashlib.sha256((folder / "model.safetensors").read_bytes()).digest() for folder in folders]
    assert weights[0] == weights[1] != weights[2]
    statistics = [next(folder.glob("*unnormalizer*.safetensors")).read_bytes() for folder in folders]
    assert statistics[0] == statistics[1] != statistics[2]


def test_ranges_scale_the_actions(tmp_path: Path) -> None:
    folder = checkpoints.act(tmp_path / "act", ranges={"action": (0.0, 512.0)}, **VECTORS)
    found = load("act_vectors", folder)
    mean = found.postprocessor.steps[0]._tensor_stats["action"]["mean"]
    assert bool(((mean > 100) & (mean < 400)).all())


def velocity(loaded: Loaded) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
    """The velocity that `sample_actions` asks for first, as a function of x_t, and its x_t; from under no_grad."""
    model, asked = loaded.policy.model, []
    original = model.denoise_step

    def spy(**arguments: Any) -> torch.Tensor:
        asked.append(arguments)
        return original(**arguments)

    model.denoise_step = spy
    try:
        predict(loaded)
    finally:
        model.denoise_step = original
    arguments = asked[0]
    return lambda x: original(**{**arguments, "x_t": x}), arguments["x_t"]


@pytest.mark.parametrize("loaded", FLOW, indirect=True)
def test_the_velocity_has_a_gradient_through_the_cache(loaded: Loaded) -> None:
    """Under no_grad, as inside sample_actions, with grad enabled around one step; against central differences."""
    ask, x_t = velocity(loaded)
    generator = torch.Generator().manual_seed(0)
    cotangent, direction = (torch.randn(x_t.shape, generator=generator) for _ in range(2))
    with torch.no_grad():
        before = ask(x_t)
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(ask(leaf), leaf, cotangent)
        assert torch.equal(ask(x_t), before), "the cache is as it was"
        step = 3e-2
        slope = (ask(x_t + step * direction) - ask(x_t - step * direction)) / (2 * step)
    expected = float((slope * cotangent).sum())
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=2e-2)
    assert float(gradient.norm()) > 1e-2


@pytest.mark.long
@pytest.mark.slow
def test_a_process_of_its_own_serves_the_tiny_pi0(tmp_path: Path) -> None:
    folder, endpoint = checkpoints.pi0(tmp_path / "pi0"), f"ipc://{tmp_path}/node"
    command = [*checkpoints.TACTUS_WITH_TINY_PI0, "serve", f"--connect={endpoint}"]
    command += ["--policy.type=lerobot", f"--policy.path={folder}"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = any(endpoint in line for line in process.stdout)
        process.terminate()
        process.stdout.read()  # its last words need somewhere to go
    assert ready and process.returncode == 0
