"""A flow policy that serves and explores: `tactus rl` has it played with, and gives it new weights meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tactus.hal.spec import Chunk, Observation, PolicySpec, SpecError
from tactus.policies.flow_model import FlowModel
from tactus.policies.noise import set_state, state_of
from tactus.policies.policy import Policy, PolicyError, Request, Session
from tactus.policies.rl.config import SIGMA, ExploreConfig
from tactus.policies.rl.noise_network import load, network_for
from tactus.policies.rl.samplers import InitialNoise, Sampler, sampler


def exploring(base: Policy, config: ExploreConfig) -> ExplorerPolicy:
    """Raises SpecError for a policy that is no flow policy."""
    noise = None if config.noise is None else Path(config.noise)
    return ExplorerPolicy(base, sampler_for(base, config.method, config.sigma, noise))


def sampler_for(base: Policy, method: str, sigma: float | None, noise: Path | None = None) -> Sampler:
    """How a policy explores by a method. noise: folder of what has been learned of the initial noise."""
    flow = flow_of(base)
    network = None
    if method == "noise":
        network = network_for(base.spec, flow.horizon, flow.actions) if noise is None else load(noise)
        if (network.horizon, network.actions) != (flow.horizon, flow.actions):
            raise SpecError(f"noise: {noise} is of another policy than {base.spec.name}")
    elif noise is not None:
        raise SpecError(f"noise: is for method=noise, found {method}")
    return sampler(method, flow, SIGMA[method] if sigma is None else sigma, network)  # type: ignore[arg-type,index]


def flow_of(policy: Policy) -> FlowModel:
    """Raises SpecError for one that is no flow policy."""
    if policy.flow is None:
        raise SpecError(
            f"policy: {policy.spec.name} is no flow policy whose noise and velocity are at hand; accepted: our flow "
            "policy, SmolVLA, PI0, PI05, not compiled"
        )
    return policy.flow


@dataclass
class _Episode:
    """Of a session. version: of the weights it began with, and ends with. generator: of what it explores with."""

    version: int
    explores: bool
    generator: torch.Generator


class ExplorerPolicy(Policy):
    """Sessions that explore get what the sampler draws, and beside it how it was drawn: `points`, `times`, `log_prob`.
    All others are answered by `base` itself, with the weights of their version.

    A new version counts for episodes that begin after it; an older one is kept as long as an episode is open in it.
    """

    def __init__(self, base: Policy, sampler: Sampler) -> None:
        self._base, self._sampler = base, sampler
        self.flow = flow_of(base)
        self.remembers, self.max_batch = base.remembers, base.max_batch
        about = {"exploration": f"{type(sampler).__name__}, sigma {sampler.sigma:g}"}
        self._spec = replace(base.spec, details={**base.spec.details, **about})
        self._draws = bool(sampler.sigma)
        self._learned = sampler.learned([nothing(base.spec)])
        self._versions: dict[int, dict[str, Tensor]] = {0: {name: w.data for name, w in self._learned.items()}}
        self._newest = self._loaded = 0
        self._episodes: dict[str, _Episode] = {}

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def weights(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self._learned.items()}

    def update(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        known = self.weights()
        if {name: array.shape for name, array in weights.items()} != known:
            raise PolicyError(f"new weights do not fit: {len(weights)} arrays for {len(known)}")
        self._versions[version] = {
            name: torch.tensor(array).to(self._learned[name].data) for name, array in weights.items()
        }
        self._newest = version
        self._forget()

    def adopt(self, version: int) -> None:
        """What the weights have become, in the very tensors that are served, is this version. Between episodes only."""
        self._versions = {version: {name: w.data for name, w in self._learned.items()}}
        self._newest = self._loaded = version
        for episode in self._episodes.values():
            episode.version = version

    def reset(self, session: Session) -> None:
        self._base.reset(session)
        generator = torch.Generator().manual_seed(session.seed % 2**63)  # where the base's begins too
        self._episodes[session.id] = _Episode(self._newest, session.explore, generator)
        self._forget()

    def end(self, session: str) -> None:
        self._base.end(session)
        self._episodes.pop(session, None)
        self._forget()

    def noise(self, session: str) -> bytes:
        if isinstance(self._sampler, InitialNoise):
            return state_of(self._episode(session).generator)
        return self._base.noise(session)

    def set_noise(self, session: str, state: bytes) -> None:
        if isinstance(self._sampler, InitialNoise):
            set_state(self._episode(session).generator, state)
        self._base.set_noise(session, state)

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        rows: dict[tuple[int, bool], list[int]] = {}
        for row, request in enumerate(requests):
            episode = self._episode(request.session)
            rows.setdefault((episode.version, episode.explores), []).append(row)
        chunks: dict[int, Chunk] = {}
        for (version, explores), members in rows.items():
            self._load(version)
            chosen = [requests[row] for row in members]
            done = self._explore(chosen) if explores and self._draws else self._answer(chosen)
            chunks |= {row: replace(chunk, version=version) for row, chunk in zip(members, done, strict=True)}
        return [chunks[row] for row in range(len(requests))]

    def _answer(self, requests: Sequence[Request]) -> list[Chunk]:
        """As deployed."""
        if not isinstance(self._sampler, InitialNoise):
            return self._base.infer(requests)
        return [replace(chunk, beside={}) for chunk in self._explore(requests)]  # its noise is what is deployed

    @torch.no_grad()
    def _explore(self, requests: Sequence[Request]) -> list[Chunk]:
        observations, tells = [request.observation for request in requests], self._sampler.tells
        generators = [self._episodes[request.session].generator for request in requests]
        drawn = self._sampler.draw(observations, generators)
        if not drawn.chunks.isfinite().all():
            raise PolicyError("the network gives numbers that are not finite; are the observations?")
        actions = self._sampler.flow.decode(drawn.chunks)
        points, times, raw = (t.float().cpu().numpy() for t in (drawn.points, drawn.times, drawn.chunks))
        log_prob = drawn.log_prob.double().cpu().numpy()
        return [
            Chunk(
                observation.tick,
                actions[row],
                raw=raw[row],
                beside={"points": points[row], "times": times[row], "log_prob": log_prob[row]} if tells else {},
            )
            for row, observation in enumerate(observations)
        ]

    def _episode(self, session: str) -> _Episode:
        if session not in self._episodes:
            raise PolicyError(f"session {session!r} has no episode yet")
        return self._episodes[session]

    def _load(self, version: int) -> None:
        """Have the networks infer with this version: its tensors take the places of the others', uncopied."""
        if version != self._loaded:
            for name, tensor in self._versions[version].items():
                self._learned[name].data = tensor
            self._loaded = version
            self._forget()

    def _forget(self) -> None:
        """Versions that no open episode has, but for the newest."""
        kept = {self._newest, self._loaded, *(episode.version for episode in self._episodes.values())}
        self._versions = {version: weights for version, weights in self._versions.items() if version in kept}


def nothing(spec: PolicySpec) -> Observation:
    """An observation of zeros."""
    lead = (len(spec.observation_offsets),) if len(spec.observation_offsets) > 1 else ()
    return Observation({name: np.zeros((*lead, *f.shape), f.dtype) for name, f in spec.inputs.items()})
