"""Guidance of a flow policy toward the actions a robot is committed to: real-time chunking (arXiv 2506.07339).

Time runs as in LeRobot: x_t = t·noise + (1 - t)·action, from t = 1 (noise) to t = 0 (action), and the network
gives v = noise - action. At every Euler step the chunk that it is heading for, x1 = x_t - t·v, is compared with
the prefix, and what is missing is fed back:

    error = (prefix - x1) · weights                      1 where committed, falling to 0 where free
    v    -= min(max_weight, (t² + (1 - t)²) / (t·(1 - t))) · errorᵀ ∂x1/∂x_t

`vjp` takes that product as the paper does. `identity` takes ∂x1/∂x_t = 1, as LeRobot 0.6.1 does: no backward pass,
and the prefix is met whether or not the network would have done anything of the kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from tactus.policies.flow_model import Guide
from tactus.policies.policy import Prefix

MAX_WEIGHT = 10.0
"""LeRobot's bound of the gain, for its ten steps."""
Schedule = Literal["zeros", "ones", "linear", "exp"]
Jacobian = Literal["identity", "vjp"]


def prefix_weights(delay: int, end: int, total: int, schedule: Schedule) -> Tensor:
    """How much each of `total` actions is drawn to the prefix, float32[total]; LeRobot's get_prefix_weights.

    Here with delay 2, end 6, total 8:

        linear   1  1  4/5  3/5  2/5  1/5  0  0
        exp      1  1  .57  .29  .11  .03  0  0      w·(exp(w) - 1)/(e - 1) of linear's w
        ones     1  1   1    1    1    1   0  0
        zeros    1  1   0    0    0    0   0  0
    """
    start, end = min(delay, end), min(end, total)
    weights = torch.zeros(total)
    weights[: end if schedule == "ones" else start] = 1.0
    if schedule in ("linear", "exp") and start < end:
        falling = torch.linspace(1, 0, end - start + 2)[1:-1]
        weights[start:end] = falling if schedule == "linear" else falling * torch.expm1(falling).div(math.e - 1)
    return weights


def max_weight(num_steps: int) -> float:
    """The bound for so many Euler steps, if none is given: with more than num_steps, a step would remove more error
    than there is. LeRobot has MAX_WEIGHT however few there are."""
    return min(MAX_WEIGHT, float(num_steps))


class Prefixes(NamedTuple):
    """The prefixes of a batch. actions: [B, H, A], zero where there are none. weights: [B, H, 1], likewise."""

    actions: Tensor
    weights: Tensor


class PrefixGuidance:
    """Stands in for LeRobot's RTCProcessor in `euler_integrate`, with a prefix length and a delay for every row.

    schedule: of `prefix_weights`. max_weight: bound of the feedback's gain; with n Euler steps a gain of n removes
    the whole error at once, and more than that overshoots. horizon: actions of a prefix that count at most, None for
    all that are left. Raises ValueError for what cannot be.
    """

    def __init__(
        self,
        schedule: Schedule = "linear",
        max_weight: float = 10.0,
        jacobian: Jacobian = "identity",
        horizon: int | None = None,
    ) -> None:
        for key, value, accepted in (("schedule", schedule, Schedule), ("jacobian", jacobian, Jacobian)):
            if value not in get_args(accepted):
                raise ValueError(f"{key}: found {value!r}; accepted: {', '.join(get_args(accepted))}")
        if not max_weight > 0:
            raise ValueError(f"max_weight: found {max_weight:g}; must be positive")
        self._schedule: Schedule = schedule
        self._max_weight = torch.as_tensor(float(max_weight), dtype=torch.float32)
        self._jacobian = jacobian
        self._horizon = horizon

    def stack(
        self, prefixes: Sequence[Prefix | None], horizon: int, width: int, device: torch.device | str = "cpu"
    ) -> Prefixes | None:
        """One row per request, for chunks [horizon, width]; None if no request has a prefix.

        Raises ValueError for a prefix longer or wider than a chunk.
        """
        actions, weights = torch.zeros(len(prefixes), horizon, width), torch.zeros(len(prefixes), horizon, 1)
        for row, prefix in enumerate(prefixes):
            if prefix is None:
                continue
            length, found = prefix.actions.shape
            if length > horizon or found > width:
                raise ValueError(f"a prefix of {length} x {found} does not fit a chunk of {horizon} x {width}")
            end = length if self._horizon is None else min(length, self._horizon)
            actions[row, :length, :found] = torch.tensor(prefix.actions)
            weights[row, :, 0] = prefix_weights(prefix.delay, end, horizon, self._schedule)
        return Prefixes(actions.to(device), weights.to(device)) if weights.any() else None

    def guide(self, prefixes: Prefixes | None) -> Guide | None:
        """Towards these prefixes, for `flow_model.integrate`; None without any."""
        if prefixes is None:
            return None
        return lambda x, time, velocity: self.denoise_step(x, prefixes, None, time, velocity)

    def denoise_step(
        self,
        x_t: Tensor,
        prev_chunk_left_over: Prefixes | None,
        inference_delay: object,
        time: float | Tensor,
        original_denoise_step_partial: Callable[[Tensor], Tensor],
        execution_horizon: object = None,
    ) -> Tensor:
        """The velocity at x_t [B, H, A], guided; a row without a prefix gets the denoiser's own, bit for bit.

        Named as LeRobot calls it. Delay and horizon are ignored: they are in the prefixes' weights. May be called
        under torch.no_grad, not under torch.inference_mode.
        """
        if prev_chunk_left_over is None:
            return original_denoise_step_partial(x_t)
        target, weights = prev_chunk_left_over
        if self._jacobian == "identity":
            v_t = original_denoise_step_partial(x_t)
            correction = (target - (x_t - time * v_t)) * weights
        else:
            with torch.enable_grad():
                x_t = x_t.detach().requires_grad_(True)
                v_t = original_denoise_step_partial(x_t)
                x1 = x_t - time * v_t
                error = (target - x1.detach()) * weights
                [correction] = torch.autograd.grad(x1, x_t, error)
            v_t = v_t.detach()
        return v_t - self._gain(time) * correction

    def _gain(self, time: float | Tensor) -> Tensor:
        """LeRobot's guidance weight, to the bit. At t = 1, where the formula has a pole, it is the bound."""
        tau = torch.as_tensor(1 - time)
        squared = (1 - tau) ** 2
        inverse_r2 = (squared + tau**2) / squared
        bound = self._max_weight
        ratio = torch.nan_to_num((1 - tau) / tau, posinf=bound.item())
        return torch.minimum(torch.nan_to_num(ratio * inverse_r2, posinf=bound.item()), bound)

    def is_debug_enabled(self) -> bool:
        """LeRobot's tracker records nothing here."""
        return False

    def track(self, *args: Any, **kwargs: Any) -> None:
        """As is_debug_enabled."""
