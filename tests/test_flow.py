"""The flow policy: its contract, its folder, and that a prefix is continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Serve
from doubles import synthetic
from safetensors.torch import load_file, save_file

from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Chunk, Feature, SpecError
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import CONFIG, WEIGHTS, FlowNetwork, Shape, load, save
from tactus.policies.flow.training import train
from tactus.policies.flow_model import integrate
from tactus.policies.guidance import PrefixGuidance
from tactus.policies.policy import Policy, PolicyError, Prefix, Request, Session
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link
from tactus.testing import PolicyConformance, some_observation

pytestmark = pytest.mark.slow

H = 8
INPUTS = {STATE: Feature((3,), "float32"), ENVIRONMENT_STATE: Feature((2,), "float64")}
ACTION = Feature((3,), "float32", low=(-1.0,) * 3, high=(1.0,) * 3, mode=("delta", "delta", "binary"))
SHAPE = Shape(INPUTS, ACTION, H, offsets=(-2, 0), hidden=32, blocks=1)


def waves(shape: Shape, episodes: int = 8, ticks: int = 30) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Demonstrations of two minds: the same observations, with actions along one wave or the opposite one."""
    rng = np.random.default_rng(0)
    observations, actions = [], []
    for episode in range(episodes):
        phase = np.arange(ticks)[:, None] / 5 + rng.uniform(0, 1)
        observations.append(np.repeat(np.sin(phase), shape.width, axis=1).astype(np.float32))
        wave = (-1) ** episode * 0.8 * np.cos(phase + np.arange(shape.action.shape[0]))
        actions.append(wave.astype(np.float32))
    return observations, actions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("flow")
    save(train(SHAPE, *waves(SHAPE), steps=300, batch=64, seed=5), path)
    return path


@pytest.fixture
def policy(folder: Path) -> Policy:
    return FlowConfig(path=str(folder)).make()


class TestConformance(PolicyConformance):
    @pytest.fixture
    def policy(self, policy: Policy) -> Policy:
        return policy


def ask(policy: Policy, session: str, tick: int, prefix: Prefix | None = None) -> Request:
    return Request(session, some_observation(policy, tick), prefix=prefix)


@pytest.mark.parametrize("steps", [1, 7, 10])
def test_integration_is_lerobots_to_the_bit(folder: Path, steps: int) -> None:
    from lerobot.policies.common.flow_matching import euler_integrate

    network, noise, seen = load(folder), torch.randn(3, H, 3), torch.randn(3, 10)
    guidance = PrefixGuidance()
    prefixes = guidance.stack([None, Prefix(np.ones((4, 3), np.float32), 2), None], H, 3)
    expected = euler_integrate(
        lambda x, time: network(x, time, seen),
        noise,
        steps,
        rtc_processor=guidance,  # type: ignore[arg-type]
        rtc_enabled=True,
        prev_chunk_left_over=prefixes,  # type: ignore[arg-type]
    )
    assert torch.equal(
        integrate(lambda x, time: network(x, time, seen), noise, steps, guidance.guide(prefixes)), expected
    )


def test_training_repeats(folder: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = train(SHAPE, *waves(SHAPE), steps=300, batch=64, seed=5)
    assert torch.equal(torch.get_rng_state(), before), "nobody else's random numbers are used up"
    for name, tensor in load(folder).state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_short_training_returns_no_beginners_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """One action, whatever is seen: after a few hundred steps the average is as good as the last weights are."""
    shape = Shape({STATE: Feature((1,), "float32")}, Feature((2,), "float32"), 4, hidden=32, blocks=1)
    observations = [np.linspace(-1, 1, 60, dtype=np.float32)[:, None]] * 2
    actions = [np.concatenate([o, 3 * o**2], axis=1) for o in observations]
    off = {}
    for kind in ("average", "last"):
        if kind == "last":
            monkeypatch.setattr("tactus.policies.flow.training.AVERAGED", 0.0)
        network = train(shape, observations, actions, steps=300, batch=128, seed=1)
        seen = torch.tensor(observations[0][:50])
        noise = torch.randn(50, 4, 2, generator=torch.Generator().manual_seed(0))
        made = integrate(lambda x, time, network=network, seen=seen: network(x, time, seen), noise, 10)
        meant = torch.stack([torch.tensor(actions[0][row : row + 4]) for row in range(50)])
        off[kind] = float((made * network.action_std + network.action_mean - meant).square().mean().sqrt())
    assert off["last"] < 0.3 and off["average"] < 1.2 * off["last"], off


@pytest.mark.parametrize("bounds", [{}, {"low": (-2.0,) * 3, "high": (2.0,) * 3}])
@pytest.mark.parametrize("still", [0.0, 0.7, -1.0])
def test_what_never_moves_is_kept_still(bounds: dict[str, tuple[float, ...]], still: float) -> None:
    """Whatever is left of the noise is not executed where all demonstrations do one and the same."""
    shape = Shape({STATE: Feature((2,), "float32")}, Feature((3,), "float32", **bounds), H, hidden=32, blocks=1)  # type: ignore[arg-type]
    observations, actions = waves(shape)
    for episode in actions:
        episode[:, 1] = still
        episode[:, 2] = still
        episode[::17, 2] += 0.02  # as good as never
    network = train(shape, observations, actions, steps=150, batch=64)
    noise, seen = torch.randn(64, H, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(64, 2)
    raw = integrate(lambda x, time: network(x, time, seen), noise, 4)
    apart = (raw * network.action_std + network.action_mean - still).abs()
    most = 0.1 if bounds else 0.02
    assert float(apart[..., 1].mean()) < most and float(apart[..., 2].mean()) < most
    assert float(network.action_std[0]) > 0.3, "and what moves is scaled as it moves"


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0])
def test_a_factor_on_the_noise(folder: Path, scale: float) -> None:
    """Of 1, what it was without; of 0, one and the same chunk for every seed; in between, nearer to each other. A
    prefix is continued with any."""
    plain, scaled = FlowConfig(path=str(folder)).make(), FlowConfig(path=str(folder), noise_scale=scale).make()
    chunks = {}
    for name, policy in (("plain", plain), ("scaled", scaled)):
        for seed in range(8):
            policy.reset(Session(str(seed), seed, ""))
        found = policy.infer([ask(policy, str(seed), 0) for seed in range(8)])
        chunks[name] = np.stack([chunk.raw for chunk in found if chunk.raw is not None])
    spread = {name: float(found.std(0).mean()) for name, found in chunks.items()}
    if scale == 1:
        assert np.array_equal(chunks["scaled"], chunks["plain"])
    else:
        assert spread["scaled"] < 0.9 * spread["plain"] and (scale > 0) == (spread["scaled"] > 1e-5)
    prefix = Prefix(np.full((6, 3), 0.25, np.float32), 4)
    config = FlowConfig(path=str(folder), noise_scale=scale, num_steps=20, max_guidance_weight=20)
    guided = config.make()
    guided.reset(Session("a", 0, ""))
    [chunk] = guided.infer([ask(guided, "a", 0, prefix)])
    assert chunk.raw is not None and np.abs(chunk.raw[:4] - 0.25).max() < 0.1


@pytest.mark.parametrize("jacobian", ["identity", "vjp"])
def test_in_one_step_the_committed_part_is_the_prefix(folder: Path, jacobian: str) -> None:
    """Not ten times what was missing: the bound that stands for ten steps would overshoot."""
    policy = FlowConfig(path=str(folder), guidance=jacobian, num_steps=1).make()  # type: ignore[arg-type]
    policy.reset(Session("a", 0, ""))
    prefix = Prefix(np.full((5, 3), 0.25, np.float32), 3)
    [chunk] = policy.infer([ask(policy, "a", 0, prefix)])
    if jacobian == "identity":
        assert np.allclose(chunk.raw[:3], 0.25, atol=1e-5)
    assert np.abs(chunk.raw).max() < 6, "and nothing is flung away"


def test_what_a_person_commanded_is_continued(policy: Policy) -> None:
    held = np.tile(np.array([0.5, -0.5, 1.0], np.float32), (4, 1))
    prefix = Prefix(policy.as_raw(held), 3)
    for session in ("free", "held"):
        policy.reset(Session(session, 0, ""))
    free, onwards = policy.infer([ask(policy, "free", 0), ask(policy, "held", 0, prefix)])
    far, near = (np.abs(chunk.actions[:4, :2] - held[:, :2]).max(axis=1) for chunk in (free, onwards))
    assert (near[:3] < 0.1).all() and near[3] < far[3], f"{near} {far}"


def test_the_prefix_is_continued(folder: Path) -> None:
    """Both minds have a say until a prefix settles it; each robot of a batch has its own."""
    for jacobian, near in (("identity", 0.1), ("vjp", 0.3)):
        config = FlowConfig(path=str(folder), guidance=jacobian, num_steps=20, max_guidance_weight=20)  # type: ignore[arg-type]
        policy = config.make()
        for name in "abcd":
            policy.reset(Session(name, ord(name), ""))
        first = policy.infer([ask(policy, name, 0) for name in "abcd"])
        lengths, delays = (8, 6, 6, 2), (4, 6, 3, 2)
        prefixes = [Prefix(c.raw[-length:], d) for c, length, d in zip(first, lengths, delays, strict=True)]  # type: ignore[index]
        after = policy.infer([ask(policy, n, 1, p) for n, p in zip("abcd", prefixes, strict=True)])
        for chunk, prefix in zip(after, prefixes, strict=True):
            assert chunk.raw is not None
            missed = np.abs(chunk.raw[: prefix.delay] - prefix.actions[: prefix.delay])
            assert missed.max() < near, (jacobian, prefix.delay, missed.max())


def test_noise_and_prefix_are_a_robots_own(policy: Policy) -> None:
    """In a batch with others, with and without prefixes, a robot gets what it would alone."""
    prefix = Prefix(np.full((5, 3), 0.5, np.float32), 2)
    requests = [ask(policy, "a", 0), ask(policy, "b", 3, prefix), ask(policy, "c", 6, Prefix(prefix.actions[:0], 0))]
    chunks = []
    for batches in ([requests], [[request] for request in requests]):
        for name in "abc":
            policy.reset(Session(name, 11, ""))
        chunks.append([chunk.raw for batch in batches for chunk in policy.infer(batch)])
    np.testing.assert_allclose(chunks[0], chunks[1], rtol=0, atol=1e-5)


def test_actions_are_within_bounds_and_switches_at_them(policy: Policy) -> None:
    policy.reset(Session("a", 1, ""))
    actions = np.concatenate([policy.infer([ask(policy, "a", tick)])[0].actions for tick in range(5)])
    assert np.abs(actions).max() <= 1
    assert set(actions[:, 2]) == {-1.0, 1.0}


def test_observations_that_are_no_numbers(policy: Policy) -> None:
    request = ask(policy, "a", 0)
    with pytest.raises(PolicyError, match="no episode"):
        policy.infer([request])
    policy.reset(Session("a", 1, ""))
    arrays = {**request.observation.arrays, STATE: np.full((2, 3), np.nan, np.float32)}
    with pytest.raises(PolicyError, match="not finite"):
        policy.infer([replace(request, observation=replace(request.observation, arrays=arrays))])


def broken_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)

    return apply


def broken_config(**changes: object) -> Callable[[Path], object]:
    return lambda folder: (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | changes))


@pytest.mark.parametrize(
    "damage, complaint",
    [
        (lambda folder: (folder / CONFIG).unlink(), "holds no config.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), "holds no model.safetensors"),
        (lambda folder: (folder / CONFIG).write_text("{"), "config.json' cannot be read"),
        (lambda folder: (folder / CONFIG).write_text("{}"), "cannot be read: KeyError"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"weights"), "model.safetensors' cannot be read"),
        (broken_config(type="act"), "its type is 'act', not 'flow'"),
        (broken_config(horizon=9), "chunk.weight is .*, expected"),
        (broken_config(inputs={}), "takes vectors, at least one"),
        (broken_weights(lambda w: w.pop("out.1.bias")), "out.1.bias is missing"),
        (broken_weights(lambda w: w.update(more=torch.ones(1))), "more is not part of this network"),
        (broken_weights(lambda w: w["time.bias"].fill_(float("nan"))), "time.bias holds numbers that are not finite"),
        (broken_weights(lambda w: w.update(action_mean=torch.ones(4))), r"action_mean is \[4\], expected \[3\]"),
        (broken_weights(lambda w: w["action_std"].zero_()), "action_std holds a standard deviation that is not"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: Callable[[Path], object], complaint: str) -> None:
    save(FlowNetwork(SHAPE), tmp_path)
    load(tmp_path)
    damage(tmp_path)
    with pytest.raises(SpecError, match=complaint):
        load(tmp_path)


def test_unusable_configs() -> None:
    with pytest.raises(SpecError, match=r"policy.path: needs the folder"):
        FlowConfig().make()
    for key in ("num_steps", "max_batch", "max_guidance_weight"):
        with pytest.raises(ValueError, match=rf"{key}: found 0; must be positive"):
            FlowConfig(**{key: 0})
    for scale, complaint in ((-0.1, "must not be negative"), (float("nan"), ""), (float("inf"), "")):
        with pytest.raises(ValueError, match=f"noise_scale: found .*{complaint}"):
            FlowConfig(noise_scale=scale)


@pytest.mark.parametrize("aggregate", ["latest_only", "rtc"])
def test_prefixes_through_both_nodes(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, aggregate: str
) -> None:
    """What the robot did while the policy thought is what the new chunk begins with."""
    robot, clock = synthetic(steps=60).make(), VirtualClock(50.0)
    shape = Shape({STATE: robot.spec.observations[STATE]}, robot.spec.action, H, hidden=32, blocks=1)
    save(train(shape, *waves(shape), steps=300, batch=64), tmp_path)
    policy = FlowConfig(path=str(tmp_path), num_steps=20, max_guidance_weight=20).make()
    answered: list[tuple[Request, Chunk]] = []
    infer = policy.infer

    def noted(requests: Sequence[Request]) -> list[Chunk]:
        chunks = infer(requests)
        answered.extend(zip(requests, chunks, strict=True))
        return chunks

    monkeypatch.setattr(policy, "infer", noted)
    link = Link(serve(policy).endpoint)
    delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:3"), lost_after_s=5)
    spec = link.hello(robot.spec, timeout_s=5)
    node = RobotNode(robot, spec, delayed, clock, LoopConfig(aggregate=aggregate, chunk_size_threshold=0.75))
    stats = node.run_episode(0, seed=1)
    link.close()
    assert stats.starved_ticks == 0 and stats.chunks > 8
    prefixes = [request.prefix for request, _ in answered]
    if aggregate == "latest_only":
        assert prefixes == [None] * len(answered)
        return
    assert prefixes[0] is None
    for request, chunk in answered[2:]:  # the second asks before any delay has been seen
        assert request.prefix is not None and request.prefix.delay == 3 and chunk.raw is not None
        assert np.abs(chunk.raw[:3] - request.prefix.actions[:3]).max() < 0.2
