"""Guidance toward a prefix: LeRobot's where it claims to be, the paper's product where it claims that."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lerobot.configs import RTCAttentionSchedule
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.rtc.modeling_rtc import RTCProcessor

from tactus.policies.guidance import PrefixGuidance, Schedule, prefix_weights
from tactus.policies.policy import Prefix

pytestmark = pytest.mark.slow

SCHEDULES = get_args(Schedule)
H, A = 8, 3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def lerobot(schedule: str = "exp", max_weight: float = 10.0, horizon: int = H) -> RTCProcessor:
    return RTCProcessor(
        RTCConfig(
            prefix_attention_schedule=RTCAttentionSchedule(schedule.upper()),
            max_guidance_weight=max_weight,
            execution_horizon=horizon,
        )
    )


class Net:
    """A small nonlinear velocity network on whole chunks; every action looks at every other."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
        self.into, self.out, self.bias = draw(H * A, 32) / 5, draw(32, H * A) / 5, draw(32)

    def __call__(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(x.flatten(1) @ self.into + self.bias * time.to(x.dtype)[:, None])
        return x - (hidden @ self.out).view_as(x)


def prefix(seed: int, length: int, delay: int, width: int = A) -> Prefix:
    return Prefix(np.random.default_rng(seed).normal(size=(length, width)).astype(np.float32), delay)


def noise(seed: int, rows: int) -> torch.Tensor:
    return torch.randn(rows, H, A, generator=torch.Generator().manual_seed(seed))


def sample(guidance: PrefixGuidance, rows: list[Prefix | None], start: torch.Tensor, steps: int = 10) -> torch.Tensor:
    with torch.no_grad():
        return euler_integrate(
            Net(0),
            start,
            steps,
            rtc_processor=guidance,  # type: ignore[arg-type]
            rtc_enabled=True,
            prev_chunk_left_over=guidance.stack(rows, H, A),  # type: ignore[arg-type]
        )


def unguided(start: torch.Tensor, steps: int = 10) -> torch.Tensor:
    return euler_integrate(Net(0), start, steps)


@given(st.integers(0, 70), st.integers(0, 70), st.integers(1, 60), st.sampled_from(SCHEDULES))
def test_weights_are_lerobots(delay: int, end: int, total: int, schedule: Schedule) -> None:
    expected = lerobot(schedule).get_prefix_weights(delay, end, total)
    assert torch.equal(prefix_weights(delay, end, total, schedule), expected)


def test_weights_are_as_drawn() -> None:
    drawn = {
        "linear": [1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5, 0, 0],
        "exp": [1, 1, 0.57, 0.29, 0.11, 0.03, 0, 0],
        "ones": [1, 1, 1, 1, 1, 1, 0, 0],
        "zeros": [1, 1, 0, 0, 0, 0, 0, 0],
    }
    for schedule in SCHEDULES:
        np.testing.assert_allclose(prefix_weights(2, 6, 8, schedule), drawn[schedule], atol=0.005)


@given(
    st.integers(0, 2**31),
    st.integers(1, H),
    st.integers(0, H),
    st.integers(1, A),
    st.integers(1, H),
    st.sampled_from(SCHEDULES),
    st.floats(0.5, 20),
    st.integers(1, 12),
)
def test_identity_is_lerobots_to_the_bit(
    seed: int, length: int, delay: int, width: int, horizon: int, schedule: Schedule, max_weight: float, steps: int
) -> None:
    """One row, whole integrations: every time from 1 down is met, and a narrower prefix is padded."""
    given, start = prefix(seed, length, min(delay, length), width), noise(seed, 1)
    left_over = torch.tensor(given.actions)[None]
    with torch.no_grad():
        expected = euler_integrate(
            Net(0),
            start,
            steps,
            rtc_processor=lerobot(schedule, max_weight, horizon),
            rtc_enabled=True,
            inference_delay=given.delay,
            prev_chunk_left_over=left_over,
        )
    guidance = PrefixGuidance(schedule, max_weight, "identity", horizon)
    assert torch.equal(sample(guidance, [given], start, steps), expected)


@pytest.mark.parametrize("time", [1.0, 0.7, 0.1])
def test_vjp_is_the_papers_product(time: float) -> None:
    """Against the Jacobian of x1(x_t) by central differences in float64."""
    net = Net(3, torch.float64)
    x = noise(1, 1).double()
    denoise = lambda x: net(x, torch.full((len(x),), time))  # noqa: E731
    guidance = PrefixGuidance("linear", 5.0, "vjp")
    rows = guidance.stack([prefix(2, 6, 2)], H, A)
    assert rows is not None
    with torch.no_grad():
        guided = guidance.denoise_step(x, rows, None, time, denoise)

    ahead = lambda x: x - time * denoise(x)  # noqa: E731
    error = ((rows.actions.double() - ahead(x)) * rows.weights.double()).flatten()
    step, product = 1e-6, torch.zeros(H * A, dtype=torch.float64)
    for i in range(H * A):
        nudge = torch.zeros(H * A, dtype=torch.float64)
        nudge[i] = step
        column = (ahead(x + nudge.view_as(x)) - ahead(x - nudge.view_as(x))).flatten() / (2 * step)
        product[i] = error @ column
    gain = 5.0 if time == 1.0 else min(5.0, (time**2 + (1 - time) ** 2) / (time * (1 - time)))
    expected = denoise(x).flatten() - gain * product
    assert float((guided.flatten() - expected).norm() / expected.norm()) < 1e-5
    assert float(((denoise(x) - guided).flatten() / gain - product).norm() / product.norm()) < 1e-5
    identity = PrefixGuidance("linear", 5.0).denoise_step(x, rows, None, time, denoise)
    assert not torch.allclose(guided, identity), "the Jacobian makes a difference"


@pytest.mark.parametrize("jacobian", ["identity", "vjp"])
class TestRows:
    def test_do_not_touch_each_other(self, jacobian: str) -> None:
        guidance = PrefixGuidance("exp", 10.0, jacobian)  # type: ignore[arg-type]
        rows = [prefix(1, 5, 2), None, prefix(2, H, H), prefix(3, 3, 0)]
        start = noise(4, len(rows))
        together = sample(guidance, rows, start)
        for i, row in enumerate(rows):
            torch.testing.assert_close(together[i : i + 1], sample(guidance, [row], start[i : i + 1]))

    def test_without_a_prefix_are_unguided_to_the_bit(self, jacobian: str) -> None:
        guidance = PrefixGuidance("exp", 10.0, jacobian)  # type: ignore[arg-type]
        start = noise(5, 3)
        together = sample(guidance, [None, prefix(1, 6, 3), prefix(1, 0, 0)], start)
        free = unguided(start)
        assert torch.equal(together[0], free[0]) and torch.equal(together[2], free[2])
        assert not torch.equal(together[1], free[1])
        assert guidance.stack([None, prefix(1, 0, 0)], H, A) is None
        assert torch.equal(sample(guidance, [None] * 3, start), free)

    @pytest.mark.parametrize("length, delay", [(H, 0), (5, 5), (H, H), (1, 1), (1, 0)])
    def test_are_drawn_to_what_is_committed(self, jacobian: str, length: int, delay: int) -> None:
        guidance = PrefixGuidance("exp", 20.0, jacobian)  # type: ignore[arg-type]
        wanted, start = prefix(7, length, delay), noise(6, 1)
        missed = np.abs(sample(guidance, [wanted], start, 20)[0, :length].numpy() - wanted.actions)
        before = np.abs(unguided(start, 20)[0, :length].numpy() - wanted.actions)
        assert np.linalg.norm(missed) < np.linalg.norm(before)
        if delay:
            assert missed[:delay].max() < 0.05 * before[:delay].max()

    def test_leave_no_graph_behind(self, jacobian: str) -> None:
        guidance = PrefixGuidance("exp", 10.0, jacobian)  # type: ignore[arg-type]
        assert not sample(guidance, [prefix(1, 5, 2)], noise(1, 1)).requires_grad


def test_refusals() -> None:
    with pytest.raises(ValueError, match="schedule: found 'steep'; accepted: zeros, ones, linear, exp"):
        PrefixGuidance("steep")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="jacobian: found 'full'; accepted: identity, vjp"):
        PrefixGuidance(jacobian="full")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_weight"):
        PrefixGuidance(max_weight=float("nan"))
    for wrong in (prefix(0, H + 1, 0), prefix(0, 2, 0, A + 1)):
        with pytest.raises(ValueError, match=f"does not fit a chunk of {H} x {A}"):
            PrefixGuidance().stack([wrong], H, A)
