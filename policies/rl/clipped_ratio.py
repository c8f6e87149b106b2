"""The clipped ratio: what was drawn in better attempts is made more probable, within limits in nats."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tactus.hal.spec import SpecError
from tactus.policies.rl.config import PracticeConfig
from tactus.policies.rl.data_parallel import share, step, total
from tactus.policies.rl.imitation import WEIGHT_DECAY, Targets, matching_loss
from tactus.policies.rl.rollouts import Rollout
from tactus.policies.rl.samplers import Sampler

REFUSALS = 12
"""Halvings of the learning rate after which an iteration in which no step stays within the KL limit is given up."""
SAME = 1e-2
"""Nats by which a learner may differ from the policy node about what it drew with the same weights; more is a fault."""


class Decision(NamedTuple):
    """A chunk that was drawn, and what came of it. weight: of its advantage in the loss. then: its log-probabilities,
    [S or 1, H], when it was drawn."""

    rollout: Rollout
    index: int
    advantage: float
    weight: float
    then: np.ndarray


class ClippedRatio:
    """Changes `trained`, the sampler's weights. What it goes on with: `optimizer`, and `rate`, its learning rate."""

    def __init__(self, sampler: Sampler, trained: Sequence[nn.Parameter], config: PracticeConfig) -> None:
        self._sampler, self._trained, self._config = sampler, trained, config
        self.optimizer = torch.optim.AdamW(trained, config.rate, weight_decay=WEIGHT_DECAY)
        self.rate = config.rate

    def learn(
        self,
        decisions: list[Decision],
        version: int,
        targets: Targets | None,
        generator: Callable[[int], torch.Generator],
    ) -> dict[str, float]:
        """Passes over the decisions until the KL limit is reached. version: the present weights'. targets: imitated
        beside. generator: of a pass, or a minibatch's imitation. Returns figures for the log."""
        config = self._config
        self._recompute(decisions, version)
        figures, outside = {"steps": 0.0, "refused": 0.0, "kl": 0.0}, 0.0
        for epoch in range(config.epochs):
            order = torch.randperm(len(decisions), generator=generator(epoch)).tolist()
            for part, rows in enumerate(np.array_split(order, math.ceil(len(order) / config.minibatch))):
                batch = [decisions[row] for row in rows]
                while True:
                    ratio, loss = self._loss(batch)
                    if targets is not None:
                        drawn = generator(10**6 + epoch * 10**4 + part)
                        loss = loss + config.bc_weight * matching_loss(self._sampler.flow, targets, len(batch), drawn)
                    kl = self._step_within(batch, loss)
                    if kl <= config.kl_stop:
                        break
                    figures["refused"] += 1
                    self.rate *= 0.5
                    if figures["steps"] or figures["refused"] > REFUSALS:  # this iteration has gone as far as it may
                        return {**figures, "rate": self.rate, "clipped": outside / max(1.0, figures["steps"])}
                outside += float(((ratio.exp() - 1).abs() > config.clip).float().mean())
                figures |= {"steps": figures["steps"] + 1, "kl": kl}
        if figures["kl"] < config.kl_stop / 4:
            self.rate = min(config.rate, 1.5 * self.rate)
        return {**figures, "rate": self.rate, "clipped": outside / figures["steps"]}

    def errors(self, rollouts: Sequence[Rollout], version: int) -> dict[str, float]:
        """Of a minibatch of decisions with the present weights, whatever came of them: by how much the node and the
        learner differ about what the node drew, and the learner's ratios begin elsewhere than at 1; in nats."""
        drawn = decisions_of(rollouts, [1.0] * len(rollouts))
        batch = [one for one in drawn if one.rollout.versions[one.index] == version][: self._config.minibatch]
        if not batch:
            return {}
        error = self._recompute(batch, version)
        with torch.no_grad():
            return {"node_error": error, "ratio_error": float(self._log_ratio(batch).abs().max())}

    @torch.no_grad()
    def _recompute(self, decisions: list[Decision], version: int) -> float:
        """Has what the node said of its own weights' chunks replaced by what the learner says of them, so that ratios
        begin at 1 however the two round; returns by how much, in nats, they differ. Raises SpecError where they do not
        mean the same."""
        error = 0.0
        for begin in range(0, len(decisions), self._config.minibatch):
            batch = decisions[begin : begin + self._config.minibatch]
            now = self._log_prob(batch)
            for place, one in enumerate(batch):
                if one.rollout.versions[one.index] == version:
                    mine, executed = now[place].cpu().numpy(), one.rollout.executed[one.index]
                    error = max(error, abs(float(((mine - one.then) * executed).sum())))
                    decisions[begin + place] = one._replace(then=mine)
        if not error <= SAME:
            raise SpecError(
                f"the policy node and the learner differ by {error:.3g} nats about chunks of the same weights: another "
                "dtype, version or checkpoint there?"
            )
        return error

    def _loss(self, batch: Sequence[Decision]) -> tuple[Tensor, Tensor]:
        """This process's share of a minibatch: log ratios [B], in nats of the whole executed chunk, and the loss."""
        mine = [batch[row] for row in share(len(batch))]
        ratio = self._log_ratio(mine)
        advantage = ratio.new_tensor([one.advantage for one in mine])
        weight = ratio.new_tensor([one.weight for one in mine])
        clip = self._config.clip
        gain = torch.minimum(ratio.exp() * advantage, ratio.exp().clamp(1 - clip, 1 + clip) * advantage)
        return ratio.detach(), -(weight * gain).sum() / len(batch)

    def _log_ratio(self, batch: Sequence[Decision]) -> Tensor:
        """[B]: log-probability of what was drawn, now minus then, summed over executed actions and steps."""
        now = self._log_prob(batch)
        then = torch.from_numpy(np.stack([one.then for one in batch])).to(now)
        executed = torch.from_numpy(np.stack([one.rollout.executed[one.index] for one in batch])).to(now)
        return ((now - then) * executed[:, None]).sum((1, 2))

    def _log_prob(self, batch: Sequence[Decision]) -> Tensor:
        """[B, S or 1, H], float64, of what was drawn, under the present weights."""
        device = self._trained[0].device
        points, times = (
            torch.from_numpy(np.stack([getattr(one.rollout, key)[one.index] for one in batch])).to(device)
            for key in ("points", "times")
        )
        return self._sampler.log_prob([one.rollout.observation(one.index) for one in batch], points, times)

    def _step_within(self, batch: Sequence[Decision], loss: Tensor) -> float:
        """A step, and how far it went, in nats per executed chunk of the minibatch; taken back where that is too
        far."""
        weights = [tensor.detach().clone() for tensor in self._trained]
        state = copy.deepcopy(self.optimizer.state_dict())
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        step(self.optimizer, self._trained, loss)
        with torch.no_grad():
            ratio = self._log_ratio([batch[row] for row in share(len(batch))])
            kl = float(total((ratio.exp() - 1 - ratio).sum()) / len(batch))
        if not kl <= self._config.kl_stop:  # not a number is not within either
            with torch.no_grad():
                for before, tensor in zip(weights, self._trained, strict=True):
                    tensor.copy_(before)
            self.optimizer.load_state_dict(state)
            return math.inf if math.isnan(kl) else kl
        return kl


def decisions_of(rollouts: Sequence[Rollout], advantages: Sequence[float]) -> list[Decision]:
    """Those that something can be learned from. Each rollout counts as one, however many decisions it took: failures
    last to the tick limit, and would outweigh successes otherwise."""
    found: list[Decision] = []
    for rollout, advantage in zip(rollouts, advantages, strict=True):
        drawn = [index for index in range(len(rollout.starts)) if rollout.executed[index].any()]
        if advantage and drawn:
            found += [
                Decision(rollout, index, float(advantage), 1 / len(drawn), rollout.log_prob[index]) for index in drawn
            ]
    whole = sum(one.weight for one in found) or 1.0
    return [one._replace(weight=one.weight * len(found) / whole) for one in found]
