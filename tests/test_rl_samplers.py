"""How a policy explores: what it says of what it drew, its padding, its marginals; what a learner makes of it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import checkpoints
import flow_teachers
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from sign_robot import H, untrained
from torch import Tensor, nn

from tactus.hal.spec import STATE, Observation, SpecError
from tactus.policies.flow_model import FlowModel
from tactus.policies.rl.clipped_ratio import SAME
from tactus.policies.rl.config import Method, PracticeConfig
from tactus.policies.rl.explorer import exploring, nothing, sampler_for
from tactus.policies.rl.learner import Learner
from tactus.policies.rl.rollouts import Rollout, leave_one_out
from tactus.policies.rl.samplers import FlowSde

DRAWING = [method for method in get_args(Method) if method != "filtered"]
KINDS = ["flow", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("smolvla", "pi0"))]


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + row) for row in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", DRAWING)
def test_what_was_drawn_is_as_probable_as_was_said(kind: str, method: Method, tmp_path: Path) -> None:
    with checkpoints.tiny_pi0():
        policy = flow_teachers.untrained(kind, tmp_path).make()
    sampler = sampler_for(policy, method, 0.2)
    seen = flow_teachers.observations(policy.spec, 3, 0)
    with torch.no_grad():
        drawn = sampler.draw(seen, generators(3))
        again = sampler.log_prob(seen, drawn.points, drawn.times)
        alone = sampler.draw(seen[1:2], generators(1, seed=1))
    assert drawn.chunks.shape == (3, sampler.flow.horizon, sampler.flow.width) and again.shape == drawn.log_prob.shape
    torch.testing.assert_close(again, drawn.log_prob, rtol=0, atol=1e-5 * sampler.flow.actions * sampler.flow.num_steps)
    torch.testing.assert_close(alone.chunks, drawn.chunks[1:2], rtol=1e-4, atol=1e-5)  # noise of its own
    learned = sampler.learned([nothing(policy.spec)])
    sampler.log_prob(seen, drawn.points, drawn.times).sum().backward()
    assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in learned.values())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["flow_noise", "flow_sde"])
def test_padding_gets_no_noise_and_has_no_part_in_a_probability(method: Method, tmp_path: Path) -> None:
    policy = flow_teachers.untrained("smolvla", tmp_path).make()
    sampler = sampler_for(policy, method, 0.2)
    flow = sampler.flow
    assert flow.width > flow.actions
    seen = flow_teachers.observations(policy.spec, 2, 0)
    with torch.no_grad():
        drawn = sampler.draw(seen, generators(2))
        condition = flow.condition(seen)
        for step in range(drawn.times.shape[1]):
            x, after = drawn.points[:, step], drawn.points[:, step + 1]
            euler = x - flow.velocity(condition, x, drawn.times[:, step]) / flow.num_steps
            torch.testing.assert_close(after[..., flow.actions :], euler[..., flow.actions :], rtol=1e-4, atol=1e-5)
            assert (after - euler)[..., : flow.actions].abs().mean() > 1e-3
        moved = drawn.points.clone()
        moved[:, -1, :, flow.actions :] += 5
        same = sampler.log_prob(seen, moved, drawn.times)
    torch.testing.assert_close(same, drawn.log_prob, rtol=0, atol=1e-2)


class Gaussian(FlowModel):
    """Data N(0, 0.5²), of which the velocity is known: E[noise - x0 | x_t]."""

    horizon, width, actions, num_steps, name = 1, 1, 1, 200, "gaussian"
    network = nn.Linear(1, 1)

    def condition(self, observations: Sequence[Observation]) -> None:
        return None

    def velocity(self, condition: Any, x: Tensor, t: Tensor) -> Tensor:
        wide = t[:, None, None]
        return (wide - (1 - wide) * 0.25) / ((1 - wide) ** 2 * 0.25 + wide**2) * x

    training_velocity = velocity

    def save(self, folder: Path, num_steps: int) -> None:
        raise NotImplementedError

    def decode(self, chunks: Tensor) -> np.ndarray:
        return chunks.numpy()

    def encode(self, actions: Tensor) -> Tensor:
        return actions


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_every_step_of_the_sde_keeps_the_marginals(sigma: float) -> None:
    flow = Gaussian()
    sampler = FlowSde(flow, sigma)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, 1, generator=generator)
    for step in range(flow.num_steps):
        t = torch.full((len(x),), 1 - step / flow.num_steps)
        mean, std = sampler._step(x, flow.velocity(None, x, t), t)
        x = mean + std * torch.randn(x.shape, generator=generator)
    assert abs(float(x.std()) - 0.5) < 0.02 and abs(float(x.mean())) < 0.02


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40))
def test_advantages_of_a_group_add_up_to_nothing_and_say_who_did_better(rollouts: list[tuple[int, bool]]) -> None:
    groups, successes = [group for group, _ in rollouts], [success for _, success in rollouts]
    advantages = leave_one_out(successes, groups)
    for group in set(groups):
        mine = [(a, s) for a, g, s in zip(advantages, groups, successes, strict=True) if g == group]
        assert abs(sum(a for a, _ in mine)) < 1e-9
        if len({s for _, s in mine}) == 1:
            assert all(a == 0 for a, _ in mine)
        else:
            assert all((a > 0) == s for a, s in mine)


def bandit(policy: Any, learner: Learner, count: int, seed: int) -> list[Rollout]:
    """Rollouts of one decision, which succeed if the first action's mean is positive; four of each beginning."""
    found = []
    for row in range(count):
        start = np.array([np.sin(row // 4), 0], np.float32)
        drawn = learner.sampler.draw([Observation({STATE: start})], generators(1, seed * 1000 + row))
        actions = learner.flow.decode(drawn.chunks)[0]
        one = {"points": drawn.points, "times": drawn.times, "log_prob": drawn.log_prob}
        found.append(
            Rollout(
                episode=row // 4,
                repeat=row % 4,
                success=bool(actions[:, 0].mean() > 0),
                ticks=H,
                task="",
                starts=np.array([0]),
                versions=np.array([learner.iteration]),
                observations={STATE: start[None]},
                executed=np.ones((1, H), bool),
                actions=actions,
                valid=np.ones(H, bool),
                **{key: value.numpy() for key, value in one.items()},
            )
        )
    return found


def practised(method: Method, folder: Path, rounds: int, shuffle: bool = False, **changes: Any) -> list[float]:
    """Share of successes before each round, and after the last."""
    torch.set_num_threads(1)
    policy = untrained(folder).make()
    learner = Learner(policy, PracticeConfig(method=method, minibatch=64, **changes))
    rates = []
    for seed in range(rounds + 1):
        with torch.no_grad():
            rollouts = bandit(policy, learner, 128, seed)
        successes = [rollout.success for rollout in rollouts]
        rates.append(float(np.mean(successes)))
        if shuffle:
            successes = np.random.default_rng([changes.get("seed", 0), seed]).permutation(successes).tolist()
        advantages = leave_one_out(successes, [rollout.episode for rollout in rollouts])
        imitated = [rollout for rollout, success in zip(rollouts, successes, strict=True) if success]
        if seed < rounds:
            figures = learner.learn(rollouts, advantages.tolist(), imitated)
            assert figures.get("ratio_error", 0.0) < 1e-5 and figures.get("node_error", 0.0) < SAME
    return rates


SETTINGS: dict[Method, dict[str, Any]] = {
    "flow_noise": {"sigma": 0.3, "learning_rate": 1e-2, "kl_stop": 0.05},
    "flow_sde": {"sigma": 1.0, "learning_rate": 1e-2, "kl_stop": 0.05},
    "noise": {"learning_rate": 1e-2, "kl_stop": 0.05},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["flow_noise", *(pytest.param(m, marks=pytest.mark.long) for m in ("flow_sde", "noise"))]
)
def test_practice_raises_what_is_rewarded_and_shuffled_rewards_do_not(method: Method, tmp_path: Path) -> None:
    rates = practised(method, tmp_path, 15, **SETTINGS[method])
    controls = [practised(method, tmp_path, 15, shuffle=True, seed=s, **SETTINGS[method])[-1] for s in range(3)]
    assert 0.35 < rates[0] < 0.65 and rates[-1] > rates[0] + 0.2, rates
    assert abs(float(np.mean(controls)) - rates[0]) < 0.15 and max(controls) < rates[-1], (rates, controls)


@pytest.mark.parametrize("rate", [1e-2, 1.0, 1e3])
def test_no_step_goes_further_than_the_kl_limit(rate: float, tmp_path: Path) -> None:
    policy = untrained(tmp_path).make()
    learner = Learner(policy, PracticeConfig(method="flow_noise", learning_rate=rate, kl_stop=0.02, minibatch=512))
    with torch.no_grad():
        rollouts = bandit(policy, learner, 128, 0)
    before = learner.arrays()
    advantages = leave_one_out([r.success for r in rollouts], [r.episode for r in rollouts])
    figures = learner.learn(rollouts, advantages.tolist(), [])
    assert figures["kl"] <= 0.02 and figures["rate"] <= rate
    if rate == 1e3:
        assert figures["refused"] > 1
    if not figures["steps"]:  # as it was, to the bit
        assert all((before[name] == array).all() for name, array in learner.arrays().items())
    assert all(np.isfinite(array).all() for array in learner.arrays().values())


def test_a_node_that_means_something_else_is_found_out(tmp_path: Path) -> None:
    policy = untrained(tmp_path).make()
    learner = Learner(policy, PracticeConfig(method="flow_noise"))
    with torch.no_grad():
        rollouts = bandit(policy, learner, 16, 0)
        next(iter(learner.weights.values())).add_(0.1)
        learner.weights["out.1.bias"].add_(0.5)
    advantages = leave_one_out([r.success for r in rollouts], [r.episode for r in rollouts])
    with pytest.raises(SpecError, match="the policy node and the learner differ by"):
        learner.learn(rollouts, advantages.tolist(), [])


def test_a_rollout_survives_its_way(tmp_path: Path) -> None:
    policy = untrained(tmp_path).make()
    with torch.no_grad():
        rollout = bandit(policy, Learner(policy, PracticeConfig(method="flow_sde")), 1, 0)[0]
    again = Rollout.from_bytes(rollout.to_bytes())
    for key, value in vars(rollout).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(again, key), value)
        elif key != "observations":
            assert getattr(again, key) == value
    np.testing.assert_array_equal(again.observations[STATE], rollout.observations[STATE])
    with pytest.raises(ValueError, match="no rollout"):
        Rollout.from_bytes(b"PK\x03\x04 something else")


def test_a_target_is_what_was_done_up_to_the_end() -> None:
    actions = np.arange(10, dtype=np.float32)[:, None]
    none = np.zeros((2, 0), np.float32)
    valid = np.ones(10, bool)
    valid[3] = False
    rollout = Rollout(
        0, 0, True, 10, "", np.array([0, 6]), np.zeros(2, int), {}, np.zeros((2, 8), bool), none, none, none,
        actions, valid,
    )  # fmt: skip
    done, until = rollout.target(6)
    assert done[:, 0].tolist() == [6, 7, 8, 9, 0, 0, 0, 0] and until.tolist() == [True] * 4 + [False] * 4
    assert rollout.target(0)[1].tolist() == [True, True, True, False, True, True, True, True]


def _rank(rank: int, port: int, folder: str, method: Method) -> None:
    """Each writes a policy of its own, so that neither reads what the other is writing."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    _gradients(Path(folder) / f"policy_{rank}", method, Path(folder) / "two.npz" if rank == 0 else None)
    dist.destroy_process_group()


def _gradients(folder: Path, method: Method, out: Path | None) -> dict[str, np.ndarray]:
    """After one optimiser step: the gradients it was made of."""
    policy = untrained(folder).make()
    beside = 0.5 if method == "flow_noise" else 0.0
    config = PracticeConfig(method=method, epochs=1, minibatch=128, steps=1, kl_stop=1e6, bc_weight=beside)
    learner = Learner(policy, config)
    drawing: Method = "flow_noise" if method == "filtered" else method
    explorer = Learner(untrained(folder).make(), PracticeConfig(method=drawing))
    with torch.no_grad():
        rollouts = bandit(policy, explorer, 64, 0)
    advantages = leave_one_out([r.success for r in rollouts], [r.episode for r in rollouts])
    learner.learn(rollouts, advantages.tolist(), [r for r in rollouts if r.success])
    found = {name: w.grad.numpy() for name, w in learner.weights.items() if w.grad is not None}
    if out is not None:
        np.savez(out, **found)  # type: ignore[arg-type]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["flow_noise", *(pytest.param(m, marks=pytest.mark.long) for m in ("filtered", "noise"))]
)
def test_the_gradients_of_two_processes_are_those_of_one(method: Method, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    one = _gradients(tmp_path / "policy", method, None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mp.spawn(_rank, (port, str(tmp_path), method), nprocs=2)
    with np.load(tmp_path / "two.npz") as two:
        assert {*two.files} == {*one}
        for name, gradient in one.items():
            scale = max(1e-3, float(np.abs(gradient).max()))
            np.testing.assert_allclose(two[name], gradient, rtol=0, atol=1e-6 * scale, err_msg=name)


def test_what_cannot_explore_says_so(tmp_path: Path) -> None:
    from tactus.policies.rl.config import ExploreConfig
    from tactus.policies.scripted.config import TickerConfig

    with pytest.raises(SpecError, match="is no flow policy"):
        exploring(TickerConfig().make(), ExploreConfig())
