"""Learns from rollouts: by the clipped ratio of what was drawn, or by imitating what succeeded."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tactus.hal.spec import Observation, SpecError
from tactus.policies import weight_average
from tactus.policies.flow_model import draw_noise
from tactus.policies.policy import Policy
from tactus.policies.rl.config import PracticeConfig
from tactus.policies.rl.explorer import nothing, sampler_for
from tactus.policies.rl.rollouts import Rollout
from tactus.policies.rl.samplers import InitialNoise
from tactus.policies.training_state import load_state, save_state

NORM = 1.0
"""Largest norm of a gradient."""
REFUSALS = 12
"""Halvings of the learning rate after which an iteration in which no step stays within the KL limit is given up."""
SAME = 1e-2
"""Nats by which a learner may differ from the policy node about what it drew with the same weights; more is a fault."""
WEIGHT_DECAY = 1e-4


class Decision(NamedTuple):
    """A chunk that was drawn, and what came of it. weight: of its advantage in the loss. then: its log-probabilities,
    [S or 1, H], when it was drawn."""

    rollout: Rollout
    index: int
    advantage: float
    weight: float
    then: np.ndarray


class Targets(NamedTuple):
    """What is imitated: what was observed, [N, H, W] what was done from there on, and [N, H, 1] how far that goes."""

    observations: list[Observation]
    chunks: Tensor
    valid: Tensor


class Learner:
    """policy: a copy of the one that plays, whose weights it changes. Of several processes, each takes its share of
    every minibatch, and all make the same step. Raises SpecError for a policy that cannot be learned for."""

    def __init__(self, policy: Policy, config: PracticeConfig) -> None:
        self._config = config
        self.sampler = sampler_for(policy, config.method, config.exploration)
        self.flow = self.sampler.flow
        self.weights = self.sampler.learned([nothing(policy.spec)])
        self._trained = [tensor for tensor in self.weights.values() if tensor.requires_grad]
        self.rate = config.rate
        self._optimizer = self._adamw()
        self.iteration = 0
        self._looked = False
        if config.method == "filtered" or config.bc_weight:
            self.flow.encode(torch.zeros(1, self.flow.horizon, self.flow.actions))  # raises now, not after an hour

    def arrays(self) -> dict[str, np.ndarray]:
        """The present weights, float32, as `Policy.update` takes them."""
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in self.weights.items()}

    def learn(
        self, rollouts: Sequence[Rollout], advantages: Sequence[float], imitated: Sequence[Rollout]
    ) -> dict[str, float]:
        """One iteration. advantages: of the rollouts. imitated: successes of this iteration and those before it, and
        demonstrations. Returns figures for the log."""
        if self._config.method == "filtered":
            figures = self._imitate(imitated) if imitated else {"learned_from": 0.0}
        else:
            figures = self._clipped(rollouts, advantages, imitated)
        self.iteration += 1
        return figures

    # imitation of what succeeded

    def _imitate(self, imitated: Sequence[Rollout]) -> dict[str, float]:
        """Flow matching, with a running average of the weights that warms up; the optimiser begins anew."""
        config = self._config
        targets = self._targets(imitated)
        optimizer = self._adamw()
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=max(2, config.steps))
        trained = {name: tensor for name, tensor in self.weights.items() if tensor.requires_grad}
        average = {name: tensor.detach().clone() for name, tensor in trained.items()}
        losses = []
        for step in range(config.steps):
            generator = self._generator(step)
            rows = torch.randint(len(targets.observations), (config.minibatch,), generator=generator)
            loss = self._matching(targets, rows, generator)
            self._step(optimizer, loss)
            schedule.step()
            weight_average.update(average, trained, step, config.average)
            losses.append(float(loss.detach()))
        with torch.no_grad():
            for name, tensor in trained.items():
                tensor.copy_(average[name])
        if not all(map(math.isfinite, losses)):
            raise SpecError(f"training: a loss is no finite number; a lower learning_rate than {self.rate:g} may do")
        return {"loss": float(np.mean(losses[-50:])), "learned_from": float(len(imitated))}

    def _targets(self, imitated: Sequence[Rollout]) -> Targets:
        """Of all that can be imitated of these rollouts."""
        observations, actions, valid = [], [], []
        for rollout in imitated:
            for observation, done, until in rollout.lessons():
                if until.any():
                    observations.append(observation)
                    actions.append(done)
                    valid.append(until)
        device = self._trained[0].device
        chunks = self.flow.encode(torch.from_numpy(np.stack(actions)).to(device))
        return Targets(observations, chunks, torch.from_numpy(np.stack(valid)).to(chunks)[..., None])

    def _matching(self, targets: Targets, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Conditional flow matching over the robot's dimensions, with t from Beta(1.5, 1) as in LeRobot."""
        chunks = targets.chunks
        noise = draw_noise([generator] * len(rows), self.flow.horizon, self.flow.width).to(chunks)
        t = (0.001 + 0.999 * torch.rand(len(rows), generator=generator) ** (1 / 1.5)).to(chunks)
        mine = _share(len(rows))
        rows, noise, t = rows[mine], noise[mine], t[mine]
        wanted, weight = chunks[rows.to(chunks.device)], targets.valid[rows.to(chunks.device)]
        mix = t[:, None, None]
        condition = self.flow.condition([targets.observations[row] for row in rows.tolist()])
        v = self.flow.training_velocity(condition, mix * noise + (1 - mix) * wanted, t)
        error = ((v - (noise - wanted)) ** 2)[..., : self.flow.actions] * weight
        return error.sum() / (_sum(weight.sum()) * self.flow.actions)

    # clipped ratio

    def _clipped(
        self, rollouts: Sequence[Rollout], advantages: Sequence[float], imitated: Sequence[Rollout]
    ) -> dict[str, float]:
        config = self._config
        decisions = _decisions(rollouts, advantages)
        figures = {"learned_from": float(len({id(one.rollout) for one in decisions}))}
        figures |= {"steps": 0.0, "refused": 0.0, "kl": 0.0, **self._checked(rollouts)}
        if len(decisions) < _processes():
            return figures
        if isinstance(self.sampler, InitialNoise) and not self._looked:
            self.sampler.network.look([one.rollout.observation(one.index) for one in decisions])
        self._looked = True
        targets = self._targets(imitated) if config.bc_weight and imitated else None
        self._recompute(decisions)
        outside = 0.0
        for epoch in range(config.epochs):
            order = torch.randperm(len(decisions), generator=self._generator(epoch)).tolist()
            for part, rows in enumerate(np.array_split(order, math.ceil(len(order) / config.minibatch))):
                batch = [decisions[row] for row in rows]
                while True:
                    ratio, loss = self._ratio_loss(batch)
                    if targets is not None:
                        generator = self._generator(10**6 + epoch * 10**4 + part)
                        rows = torch.randint(len(targets.observations), (len(batch),), generator=generator)
                        loss = loss + config.bc_weight * self._matching(targets, rows, generator)
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

    def _checked(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Of a minibatch of decisions with the present weights, whatever came of them: by how much the node and the
        learner differ about what the node drew, and the learner's ratios begin elsewhere than at 1; in nats."""
        drawn = _decisions(rollouts, [1.0] * len(rollouts))
        batch = [one for one in drawn if one.rollout.versions[one.index] == self.iteration][: self._config.minibatch]
        if not batch:
            return {}
        error = self._recompute(batch)
        with torch.no_grad():
            return {"node_error": error, "ratio_error": float(self._log_ratio(batch).abs().max())}

    @torch.no_grad()
    def _recompute(self, decisions: list[Decision]) -> float:
        """Has what the node said of its own weights' chunks replaced by what the learner says of them, so that ratios
        begin at 1 however the two round; returns by how much, in nats, they differ. Raises SpecError where they do not
        mean the same."""
        error = 0.0
        for begin in range(0, len(decisions), self._config.minibatch):
            batch = decisions[begin : begin + self._config.minibatch]
            now = self._log_prob(batch)
            for place, one in enumerate(batch):
                if one.rollout.versions[one.index] == self.iteration:
                    mine, executed = now[place].cpu().numpy(), one.rollout.executed[one.index]
                    error = max(error, abs(float(((mine - one.then) * executed).sum())))
                    decisions[begin + place] = one._replace(then=mine)
        if not error <= SAME:
            raise SpecError(
                f"the policy node and the learner differ by {error:.3g} nats about chunks of the same weights: another "
                "dtype, version or checkpoint there?"
            )
        return error

    def _ratio_loss(self, batch: Sequence[Decision]) -> tuple[Tensor, Tensor]:
        """This process's share of a minibatch: log ratios [B], in nats of the whole executed chunk, and the loss."""
        mine = [batch[row] for row in _share(len(batch))]
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
        return self.sampler.log_prob([one.rollout.observation(one.index) for one in batch], points, times)

    def _step_within(self, batch: Sequence[Decision], loss: Tensor) -> float:
        """A step, and how far it went, in nats per executed chunk of the minibatch; taken back where that is too
        far."""
        weights = [tensor.detach().clone() for tensor in self._trained]
        state = copy.deepcopy(self._optimizer.state_dict())
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._step(self._optimizer, loss)
        with torch.no_grad():
            ratio = self._log_ratio([batch[row] for row in _share(len(batch))])
            kl = float(_sum((ratio.exp() - 1 - ratio).sum()) / len(batch))
        if not kl <= self._config.kl_stop:  # not a number is not within either
            with torch.no_grad():
                for before, tensor in zip(weights, self._trained, strict=True):
                    tensor.copy_(before)
            self._optimizer.load_state_dict(state)
            return math.inf if math.isnan(kl) else kl
        return kl

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        for tensor in self._trained:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            if _processes() > 1:
                dist.all_reduce(tensor.grad)
        torch.nn.utils.clip_grad_norm_(self._trained, NORM)
        optimizer.step()

    def _adamw(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self._trained, self.rate, weight_decay=WEIGHT_DECAY)

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
        numbers = torch.tensor([self.iteration, self.rate, float(self._looked)], dtype=torch.float64)
        save_state(file, about, dict(self.weights), {}, [self._optimizer], numbers)  # type: ignore[arg-type]

    def load_state(self, file: Path, about: Mapping[str, str]) -> None:
        """Raises SpecError for another practice's, or a broken file."""
        numbers = load_state(file, about, dict(self.weights), {}, [self._optimizer])
        self.iteration, self.rate, self._looked = int(numbers[0]), float(numbers[1]), bool(numbers[2])


def _decisions(rollouts: Sequence[Rollout], advantages: Sequence[float]) -> list[Decision]:
    """Those that something can be learned from. Each rollout counts as one, however many decisions it took: failures
    last to the tick limit, and would outweigh successes otherwise."""
    found: list[Decision] = []
    for rollout, advantage in zip(rollouts, advantages, strict=True):
        drawn = [index for index in range(len(rollout.starts)) if rollout.executed[index].any()]
        if advantage and drawn:
            found += [
                Decision(rollout, index, float(advantage), 1 / len(drawn), rollout.log_prob[index]) for index in drawn
            ]
    total = sum(one.weight for one in found) or 1.0
    return [one._replace(weight=one.weight * len(found) / total) for one in found]


def _processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _share(count: int) -> range:
    """The rows of a minibatch that are this process's."""
    return range(dist.get_rank() if _processes() > 1 else 0, count, _processes())


def _sum(value: Tensor) -> Tensor:
    """Over all processes."""
    if _processes() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value
