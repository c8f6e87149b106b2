"""A flow policy seen by its noise and its velocity is the policy that is deployed, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import checkpoints
import flow_teachers
import numpy as np
import pytest
import torch

from tactus.policies.guidance import PrefixGuidance
from tactus.policies.policy import Policy, PolicyConfig, Prefix, Request, Session
from tactus.runtime.commands.verification import at

pytestmark = pytest.mark.slow

KINDS = ("flow", "smolvla", "pi0", "pi05")


@pytest.fixture(scope="module", params=KINDS)
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyConfig]:
    with checkpoints.tiny_pi0():
        yield flow_teachers.untrained(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def policy(config: PolicyConfig) -> Policy:
    return config.make()


def asked(policy: Policy, prefixes: list[Prefix | None]) -> list[Request]:
    seen = flow_teachers.observations(policy.spec, len(prefixes), seed=1)
    for row in range(len(seen)):
        policy.reset(Session(f"robot {row}", row, seen[row].task))
    return [
        Request(f"robot {row}", one, prefix=prefix)
        for row, (one, prefix) in enumerate(zip(seen, prefixes, strict=True))
    ]


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0])
def test_what_is_integrated_is_what_is_inferred(config: PolicyConfig, guided: bool, scale: float) -> None:
    policy = replace(config, noise_scale=scale).make()  # type: ignore[call-arg]
    flow = policy.flow
    assert flow is not None and flow.noise_scale == scale
    prefix = Prefix(np.full((6, flow.actions), 0.5, np.float32), 2)
    prefixes = [None, prefix, None] if guided else [None] * 3
    requests = asked(policy, prefixes)
    expected = [chunk.raw for chunk in policy.infer(requests)]
    noise = flow.noise([torch.Generator().manual_seed(row) for row in range(3)])
    assert noise.shape == (3, flow.horizon, flow.width)
    guidance = PrefixGuidance()
    with torch.no_grad():
        condition = flow.condition([request.observation for request in requests])
        stacked = guidance.stack(prefixes, flow.horizon, flow.width)
        chunks = flow.integrate(condition, noise, guide=guidance.guide(stacked))
    for chunk, raw in zip(chunks[..., : flow.actions].numpy(), expected, strict=True):
        assert np.array_equal(chunk, raw)


def test_the_factor_on_the_noise(config: PolicyConfig, policy: Policy) -> None:
    """Of 1 it is LeRobot's own draw, to the bit; with any, the noises after it are where they would have been."""
    for scale in (1.0, 0.25, 0.0):
        flow = replace(config, noise_scale=scale).make().flow  # type: ignore[call-arg]
        assert flow is not None
        generator = torch.Generator().manual_seed(7)
        drawn = torch.stack([flow.noise([generator] * 2) for _ in range(2)])
        torch.manual_seed(7)
        rows = [torch.normal(0.0, 1.0, (1, flow.horizon, flow.width)) for _ in range(4)]
        expected = torch.cat(rows).view(2, 2, flow.horizon, flow.width)
        assert torch.equal(drawn, expected if scale == 1 else expected * scale)
    none = replace(config, noise_scale=0.0).make()  # type: ignore[call-arg]
    answers = [none.infer(asked(none, [None] * 3)) for _ in range(2)]
    [other] = none.infer([replace(request, session="robot 2") for request in asked(none, [None] * 3)[:1]])
    assert np.array_equal(answers[0][0].raw, answers[1][0].raw)
    np.testing.assert_allclose(other.raw, answers[0][0].raw, rtol=0, atol=1e-5)  # type: ignore[arg-type]


def test_the_velocity_that_is_trained_is_the_one_that_is_deployed(policy: Policy) -> None:
    flow = policy.flow
    assert flow is not None
    condition = flow.condition(flow_teachers.observations(policy.spec, 4, seed=2))
    noise = flow.noise([torch.Generator().manual_seed(0)] * 4)
    t = torch.tensor([1.0, 0.7, 0.3, 0.05])
    with torch.no_grad():
        deployed, trained = flow.velocity(condition, noise, t), flow.training_velocity(condition, noise, t)
    assert float((deployed - trained).abs().max()) < 1e-5 * float(deployed.abs().max()) + 1e-6
    again = flow.velocity(condition, noise, t)
    assert torch.equal(again, deployed), "the cache is as it was"


def test_a_student_of_other_steps_is_saved_and_loads(config: PolicyConfig, policy: Policy, tmp_path: Path) -> None:
    flow = policy.flow
    assert flow is not None
    assert flow.num_steps != 1
    flow.save(tmp_path / "student", 1)
    student = at(config, tmp_path / "student").make().flow
    assert student is not None and student.num_steps == 1
    for (name, mine), (_, theirs) in zip(
        sorted(student.network.state_dict().items()), sorted(flow.network.state_dict().items()), strict=True
    ):
        assert torch.equal(mine, theirs), name
