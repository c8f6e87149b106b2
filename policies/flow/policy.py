"""The flow policy: one batched integration from noise to chunks, each robot with noise and prefix of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tactus.hal.spec import Chunk, PolicySpec, SpecError
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import WEIGHTS, FlowNetwork, load, see
from tactus.policies.guidance import Prefixes, PrefixGuidance
from tactus.policies.noise import set_state, state_of
from tactus.policies.policy import Policy, PolicyError, Request, Session


def build(config: FlowConfig) -> FlowPolicy:
    """The policy of a config. Raises SpecError if its folder holds no trained network."""
    if not config.path:
        raise SpecError("policy.path: needs the folder of a trained flow policy")
    folder = Path(config.path)
    network = load(folder).to(config.device)
    guidance = PrefixGuidance(config.guidance_schedule, config.max_guidance_weight, config.guidance)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:8]
    name = f"flow {folder.resolve().name} {digest}"
    return FlowPolicy(network, guidance, config.num_steps, config.max_batch, name)


class FlowPolicy(Policy):
    """Chunk.raw is the normalised chunk, float32[H, A]. Where actions are bounded, chunks are clipped to the bounds,
    and switches take the nearer one.

    Noise is drawn on the CPU, from a generator per session, so that neither batch nor device changes it.
    """

    remembers = False

    def __init__(
        self, network: FlowNetwork, guidance: PrefixGuidance, num_steps: int, max_batch: int, name: str = "flow"
    ) -> None:
        shape = network.shape
        self.network = network
        self._guidance = guidance
        self._num_steps = num_steps
        self._chunk = (shape.horizon, shape.action.shape[0])
        self._device = network.action_mean.device
        self._mean, self._std = (t.cpu().numpy() for t in (network.action_mean, network.action_std))
        self._switches = np.array([mode == "binary" for mode in shape.action.mode] or [False] * self._chunk[1], bool)
        self._generators: dict[str, torch.Generator] = {}
        self._spec = PolicySpec(
            name, shape.inputs, shape.action, shape.horizon, shape.offsets, True, shape.fps, casts=True
        )
        self.max_batch = max_batch

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        self._generators[session.id] = torch.Generator().manual_seed(session.seed % 2**63)

    def end(self, session: str) -> None:
        self._generators.pop(session, None)

    def noise(self, session: str) -> bytes:
        return state_of(self._generators[session])

    def set_noise(self, session: str, state: bytes) -> None:
        set_state(self._generators[session], state)

    @torch.no_grad()
    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        noise = torch.stack([self._noise(request.session) for request in requests]).to(self._device)
        history = torch.tensor(np.stack([self._history(request) for request in requests]), device=self._device)
        observations = see(history)
        prefixes = self._guidance.stack([request.prefix for request in requests], *self._chunk, self._device)
        raw = integrate(
            lambda x, time: self.network(x, time, observations), noise, self._num_steps, self._guidance, prefixes
        )
        if not raw.isfinite().all():
            raise PolicyError("the network gives numbers that are not finite; are the observations?")
        return [
            Chunk(request.observation.tick, self._actions(row), raw=row)
            for request, row in zip(requests, raw.cpu().numpy(), strict=True)
        ]

    def _noise(self, session: str) -> torch.Tensor:
        if session not in self._generators:
            raise PolicyError(f"session {session!r} has no episode yet")
        return torch.randn(self._chunk, generator=self._generators[session])

    def _history(self, request: Request) -> np.ndarray:
        """float32[offsets, width]."""
        arrays, count = request.observation.arrays, len(self._spec.observation_offsets)
        rows = [np.asarray(arrays[name], np.float32).reshape(count, -1) for name in self._spec.inputs]
        return np.concatenate(rows, axis=1)

    def _actions(self, raw: np.ndarray) -> np.ndarray:
        feature = self._spec.action
        actions = raw * self._std + self._mean
        if feature.low and feature.high:
            low, high = np.array(feature.low), np.array(feature.high)
            actions = np.clip(actions, low, high)
            nearer = np.where(actions - low < high - actions, low, high)
            actions = np.where(self._switches, nearer, actions)
        return actions.astype(feature.dtype)


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    num_steps: int,
    guidance: PrefixGuidance,
    prefixes: Prefixes | None,
) -> Tensor:
    """From noise [B, H, A] at t = 1 to actions at t = 0 by Euler steps of velocity(x, t [B]).

    LeRobot's euler_integrate, to the bit; importing that one takes 20 s, since all of its policies come along.
    """
    x, dt = noise, -1.0 / num_steps
    for step in range(num_steps):
        time = 1.0 + step * dt
        times = torch.full((len(x),), time, device=x.device)
        v = guidance.denoise_step(x, prefixes, None, time, lambda x, times=times: velocity(x, times))
        x = x + dt * v
    return x
