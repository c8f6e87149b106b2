"""ACT's temporal ensembling by absolute tick, so that it also works when not every tick asks for a chunk.

tick             0    1    2    3    4    5
chunk at 0       a0   a1   a2   a3
chunk at 2                 b2   b3   b4   b5
ensemble at 2              ab2  ab3  b4   b5    ab: the older one has weight 1, the newer exp(-m), normalised
"""

from __future__ import annotations

import torch
from lerobot.policies.act.modeling_act import ACTTemporalEnsembler
from torch import Tensor


class TemporalEnsemble:
    """One session's. coefficient: ACT's m. Asked at every tick, its first action is LeRobot's to the bit."""

    def __init__(self, coefficient: float, horizon: int) -> None:
        self._ensembler = ACTTemporalEnsembler(coefficient, horizon)
        self._horizon = horizon
        self._tick: int | None = None
        self._before: tuple[Tensor | None, Tensor | None] = (None, None)

    def update(self, chunk: Tensor, tick: int) -> Tensor:
        """[H, A] predicted at `tick` -> [H, A] for tick … tick+H-1, weighed with all that was predicted before."""
        ensembler = self._ensembler
        if self._tick is None or tick < self._tick or tick - self._tick >= self._horizon:
            ensembler.reset()
        elif tick == self._tick:  # asked again: the first answer was lost, and must not count twice
            ensembler.ensembled_actions, ensembler.ensembled_actions_count = self._before
        else:
            self._skip(tick - self._tick - 1)
        self._tick, self._before = tick, _copies(ensembler)
        action = ensembler.update(chunk[None])
        assert ensembler.ensembled_actions is not None
        return torch.cat([action[:, None], ensembler.ensembled_actions], dim=1)[0]

    def _skip(self, ticks: int) -> None:
        """Drop the ticks that were not asked at; the far end gets as many that nothing was predicted for (count 0)."""
        ensembler = self._ensembler
        actions, count = ensembler.ensembled_actions, ensembler.ensembled_actions_count
        assert actions is not None and count is not None
        if ticks:
            ensembler.ensembled_actions = torch.cat([actions[:, ticks:], torch.zeros_like(actions[:, :ticks])], dim=1)
            ensembler.ensembled_actions_count = torch.cat([count[ticks:], torch.zeros_like(count[:ticks])])


def _copies(ensembler: ACTTemporalEnsembler) -> tuple[Tensor | None, Tensor | None]:
    """`update` works in place."""
    actions, count = ensembler.ensembled_actions, ensembler.ensembled_actions_count
    return (None, None) if actions is None or count is None else (actions.clone(), count.clone())
