"""The flow policy: one batched integration from noise to chunks, each robot with noise and prefix of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tactus.hal.spec import Chunk, Observation, PolicySpec, SpecError
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import WEIGHTS, FlowNetwork, load, save, see
from tactus.policies.flow_model import FlowModel
from tactus.policies.guidance import PrefixGuidance, max_weight
from tactus.policies.noise import set_state, state_of
from tactus.policies.policy import Policy, PolicyError, Request, Session


def build(config: FlowConfig) -> FlowPolicy:
    """The policy of a config. Raises SpecError if its folder holds no trained network."""
    if not config.path:
        raise SpecError("policy.path: needs the folder of a trained flow policy")
    folder = Path(config.path)
    network = load(folder).to(config.device)
    bound = config.max_guidance_weight or max_weight(config.num_steps or network.shape.num_steps)
    guidance = PrefixGuidance(config.guidance_schedule, bound, config.guidance)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:8]
    name = f"flow {folder.resolve().name} {digest}"
    return FlowPolicy(network, guidance, config.max_batch, name, config.num_steps, config.noise_scale)


class FlowPolicy(Policy):
    """Chunk.raw is the normalised chunk, float32[H, A]. Where actions are bounded, chunks are clipped to the bounds,
    and switches take the nearer one.

    Noise is drawn on the CPU, from a generator per session, so that neither batch nor device changes it.
    """

    remembers = False
    flow: NetworkFlow

    def __init__(
        self,
        network: FlowNetwork,
        guidance: PrefixGuidance,
        max_batch: int,
        name: str = "flow",
        num_steps: int | None = None,
        noise_scale: float = 1.0,
    ) -> None:
        shape = network.shape
        self.flow = NetworkFlow(network, name, num_steps or shape.num_steps, noise_scale)
        self._guidance = guidance
        self._chunk = (shape.horizon, shape.action.shape[0])
        self._device = network.action_mean.device
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
    def as_raw(self, actions: np.ndarray) -> np.ndarray:
        return self.flow.encode(torch.tensor(actions, device=self._device)).cpu().numpy()

    @torch.no_grad()
    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        noise = self.flow.noise([self._generator(request.session) for request in requests]).to(self._device)
        condition = self.flow.condition([request.observation for request in requests])
        prefixes = self._guidance.stack([request.prefix for request in requests], *self._chunk, self._device)
        raw = self.flow.integrate(condition, noise, guide=self._guidance.guide(prefixes))
        if not raw.isfinite().all():
            raise PolicyError("the network gives numbers that are not finite; are the observations?")
        return [
            Chunk(request.observation.tick, actions, raw=row)
            for request, actions, row in zip(requests, self.flow.decode(raw), raw.cpu().numpy(), strict=True)
        ]

    def _generator(self, session: str) -> torch.Generator:
        if session not in self._generators:
            raise PolicyError(f"session {session!r} has no episode yet")
        return self._generators[session]


class NetworkFlow(FlowModel):
    """A FlowNetwork as a flow model; nothing of it is padding. Noise is drawn on the CPU."""

    network: FlowNetwork

    def __init__(self, network: FlowNetwork, name: str, num_steps: int, noise_scale: float = 1.0) -> None:
        self.network, self.name, self.num_steps, self.noise_scale = network, name, num_steps, noise_scale
        self.horizon, self.width = network.shape.horizon, network.shape.action.shape[0]
        self.actions = self.width
        self._mean, self._std = (t.cpu().numpy() for t in (network.action_mean, network.action_std))
        self._switches = np.array(
            [mode == "binary" for mode in network.shape.action.mode] or [False] * self.width, bool
        )

    @torch.no_grad()
    def condition(self, observations: Sequence[Observation]) -> Tensor:
        """What `see` makes of observations, [B, len(offsets)·width]."""
        history = np.stack([self._history(observation) for observation in observations])
        return see(torch.tensor(history, device=self.network.action_mean.device))

    def velocity(self, condition: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.network(x, t, condition)

    training_velocity = velocity
    """Nothing is cached."""

    def decode(self, chunks: Tensor) -> np.ndarray:
        """In the action's units: within its bounds, and at switches the nearer one."""
        feature = self.network.shape.action
        actions = chunks.cpu().numpy() * self._std + self._mean
        if feature.low and feature.high:
            low, high = np.array(feature.low), np.array(feature.high)
            actions = np.clip(actions, low, high)
            nearer = np.where(actions - low < high - actions, low, high)
            actions = np.where(self._switches, nearer, actions)
        return actions.astype(feature.dtype)

    def encode(self, actions: Tensor) -> Tensor:
        return (actions - self.network.action_mean) / self.network.action_std

    def save(self, folder: Path, num_steps: int) -> None:
        save(self.network, folder, num_steps)

    def _history(self, observation: Observation) -> np.ndarray:
        """float32[offsets, width]."""
        shape = self.network.shape
        rows = [
            np.asarray(observation.arrays[name], np.float32).reshape(len(shape.offsets), -1) for name in shape.inputs
        ]
        return np.concatenate(rows, axis=1)
