"""Learns from rollouts: by the clipped ratio of what was drawn, or by imitating what succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tactus.policies.policy import Policy
from tactus.policies.rl.clipped_ratio import ClippedRatio, decisions_of
from tactus.policies.rl.config import PracticeConfig
from tactus.policies.rl.data_parallel import processes
from tactus.policies.rl.explorer import nothing, sampler_for
from tactus.policies.rl.imitation import Targets, imitate, targets_of
from tactus.policies.rl.rollouts import Rollout
from tactus.policies.rl.samplers import InitialNoise
from tactus.policies.training_state import load_state, save_state


class Learner:
    """policy: a copy of the one that plays, whose weights it changes. Of several processes, each takes its share of
    every minibatch, and all make the same step. Raises SpecError for a policy that cannot be learned for."""

    def __init__(self, policy: Policy, config: PracticeConfig) -> None:
        self._config = config
        self.sampler = sampler_for(policy, config.method, config.exploration)
        self.flow = self.sampler.flow
        self.weights = self.sampler.learned([nothing(policy.spec)])
        trained = [tensor for tensor in self.weights.values() if tensor.requires_grad]
        self._ratio = ClippedRatio(self.sampler, trained, config)
        self.iteration = 0
        self._looked = False
        if config.imitates:
            self.flow.encode(torch.zeros(1, self.flow.horizon, self.flow.actions))  # raises now, not after an hour

    def arrays(self) -> dict[str, np.ndarray]:
        """The present weights, float32, as `Policy.update` takes them."""
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in self.weights.items()}

    def learn(
        self, rollouts: Sequence[Rollout], advantages: Sequence[float], imitated: Sequence[Rollout]
    ) -> dict[str, float]:
        """One iteration. advantages: of the rollouts. imitated: successes of this iteration and those before it, and
        demonstrations. Returns figures for the log."""
        targets = targets_of(self.flow, imitated) if self._config.imitates and imitated else None
        if self._config.method != "filtered":
            figures = self._clipped(rollouts, advantages, targets)
        else:
            figures = {"learned_from": float(len(imitated))}
            if targets is not None:
                figures |= imitate(self.flow, self.weights, targets, self._config, self._generator)
        self.iteration += 1
        return figures

    def _clipped(
        self, rollouts: Sequence[Rollout], advantages: Sequence[float], targets: Targets | None
    ) -> dict[str, float]:
        decisions = decisions_of(rollouts, advantages)
        figures = {
            "learned_from": float(len({id(one.rollout) for one in decisions})),
            **self._ratio.errors(rollouts, self.iteration),
        }
        if len(decisions) < processes():
            return {**figures, "steps": 0.0, "refused": 0.0, "kl": 0.0}
        if isinstance(self.sampler, InitialNoise) and not self._looked:
            self.sampler.network.look([one.rollout.observation(one.index) for one in decisions])
        self._looked = True
        return {**figures, **self._ratio.learn(decisions, self.iteration, targets, self._generator)}

    def _generator(self, step: int) -> torch.Generator:
        seed = np.random.SeedSequence([self._config.seed, self.iteration, step]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(seed[0] >> 1))

    # what it takes to go on

    def save(self, folder: Path) -> None:
        """A checkpoint that can be served: the policy's own kind, or what has been learned of its noise."""
        if isinstance(self.sampler, InitialNoise):
            self.sampler.network.save(folder)
        else:
            self.flow.save(folder, self.flow.num_steps)

    def save_state(self, file: Path, about: Mapping[str, str]) -> None:
        """All that the next iteration depends on. about: whose practice it is."""
        numbers = torch.tensor([self.iteration, self._ratio.rate, float(self._looked)], dtype=torch.float64)
        save_state(file, about, dict(self.weights), {}, [self._ratio.optimizer], numbers)  # type: ignore[arg-type]

    def load_state(self, file: Path, about: Mapping[str, str]) -> None:
        """Raises SpecError for another practice's, or a broken file."""
        numbers = load_state(file, about, dict(self.weights), {}, [self._ratio.optimizer])
        self.iteration, self._ratio.rate, self._looked = int(numbers[0]), float(numbers[1]), bool(numbers[2])
