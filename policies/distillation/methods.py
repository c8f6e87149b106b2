"""What a student is trained on. Both methods want one thing at t = 1: the velocity that leads to the teacher's chunk in
one step.

reflow (arXiv 2209.03003)        on the straight line from a noise to the teacher's chunk of it: the line's direction
consistency (arXiv 2303.01469)   from any point of a way: to the same end as from the teacher's next point of it
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tactus.policies.distillation.pairs import Pairs
from tactus.policies.flow_model import FlowModel

AT_ONE = (0.5, 0.95)
"""Share of the draws that are at t = 1, in the first stage and in the second; the others are anywhere in 0 … 1. Without
them a one-step student is bad where alone it is asked: LeRobot's own sampler almost never draws t = 1."""


class Reflow:
    """The pairs as they are. needs_teacher: whether the target is asked of the teacher. coupled: whether a noise is
    trained with the chunk that the teacher made of it."""

    needs_teacher, coupled = False, True

    def given(self, pairs: Pairs) -> Pairs:
        """What of the pairs is trained on."""
        return pairs

    def weights(self, pairs: Pairs) -> Tensor:
        """Of every number in the loss, [N, H, W]. All of them: the teacher's chunk is valid past an episode's end, and
        padding moves actions."""
        return torch.ones_like(pairs.chunks)

    def times(self, count: int, stage: int, generator: torch.Generator) -> Tensor:
        """[count], in 0 … 1."""
        anywhere = torch.rand(count, generator=generator)
        return torch.where(torch.rand(count, generator=generator) < AT_ONE[stage], torch.ones(()), anywhere)

    def point(self, pairs: Pairs, t: Tensor) -> Tensor:
        """x_t, [N, H, W]."""
        mix = t[:, None, None]
        return mix * pairs.noise + (1 - mix) * pairs.chunks

    def direction(self, pairs: Pairs) -> Tensor:
        """Of the straight line, [N, H, W]."""
        return pairs.noise - pairs.chunks

    def target(
        self, pairs: Pairs, x: Tensor, t: Tensor, teacher: FlowModel, student: FlowModel, conditions: tuple[Any, Any]
    ) -> Tensor:
        """The velocity wanted at x, [N, H, W]. conditions: the teacher's and the student's."""
        return self.direction(pairs)


class Consistency(Reflow):
    """Any noise with any chunk: the pairs are not used as pairs."""

    needs_teacher, coupled = True, False

    def given(self, pairs: Pairs) -> Pairs:
        return pairs._replace(noise=pairs.noise.roll(1, 0))

    @torch.no_grad()
    def target(
        self, pairs: Pairs, x: Tensor, t: Tensor, teacher: FlowModel, student: FlowModel, conditions: tuple[Any, Any]
    ) -> Tensor:
        dt = torch.minimum(t, torch.tensor(1 / teacher.num_steps))
        wide = [time[:, None, None] for time in (t, dt, t - dt)]
        nearer = x - wide[1] * teacher.velocity(conditions[0], x, t)
        end = nearer - wide[2] * student.velocity(conditions[1], nearer, t - dt)
        return (x - end) / wide[0].clamp(min=1e-3)


METHODS = {"reflow": Reflow, "consistency": Consistency}
