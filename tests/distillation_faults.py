"""The known wrong ways to distil a flow policy, as methods to train with; no command knows them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tactus.policies.distillation.methods import Reflow
from tactus.policies.distillation.pairs import Pairs


class Cropped(Reflow):
    """The teacher's chunks and the noise are cropped to the robot's dimensions, and padded with zeros again."""

    crops_noise, crops_chunks, real_only = True, True, True

    def __init__(self, actions: int) -> None:
        self._actions = actions

    def given(self, pairs: Pairs) -> Pairs:
        noise, chunks = pairs.noise.clone(), pairs.chunks.clone()
        if self.crops_noise:
            noise[..., self._actions :] = 0
        if self.crops_chunks:
            chunks[..., self._actions :] = 0
        return Pairs(pairs.rows, noise, chunks)

    def weights(self, pairs: Pairs) -> Tensor:
        weights = super().weights(pairs)
        if self.real_only:
            weights[..., self._actions :] = 0
        return weights


class CroppedChunks(Cropped):
    crops_noise, real_only = False, False


class CroppedTargets(Cropped):
    """As above, and the loss covers the robot's dimensions alone."""

    crops_noise = False


class ZeroPaddedNoise(Cropped):
    """The popular fix of the first one: the chunks stay whole, the noise does not. x_t then tells the padding."""

    crops_chunks = False


class ActionIsPad(Reflow):
    """What a chunk does past its episode's end does not count; episodes of `length` observations."""

    def __init__(self, length: int) -> None:
        self._length = length

    def weights(self, pairs: Pairs) -> Tensor:
        left = self._length - pairs.rows % self._length
        steps = torch.arange(pairs.chunks.shape[1])
        return (steps[None] < left[:, None]).float()[..., None].expand_as(pairs.chunks).contiguous()


class Reversed(Reflow):
    """t = 0 is noise, as in most papers."""

    def point(self, pairs: Pairs, t: Tensor) -> Tensor:
        return super().point(pairs, 1 - t)

    def direction(self, pairs: Pairs) -> Tensor:
        return pairs.chunks - pairs.noise


class Mean(Reflow):
    """All noises of an observation get one chunk, the mean. means: [observations, H, W]."""

    def __init__(self, means: Tensor) -> None:
        self._means = means

    def given(self, pairs: Pairs) -> Pairs:
        return pairs._replace(chunks=self._means[pairs.rows])


class Fault(NamedTuple):
    """check: that is to fail. cause: part of what it is to say."""

    method: Reflow
    check: str
    cause: str


def of_padding(actions: int) -> dict[str, Fault]:
    """Those that only a policy can have whose chunks are padded."""
    cropped, narrow = "cropped to the robot's dimensions", "narrower than deployment"
    return {
        "noise and chunks cropped": Fault(Cropped(actions), "noise", narrow),
        "chunks cropped": Fault(CroppedChunks(actions), "padding", cropped),
        "loss on real dimensions, cropped targets": Fault(CroppedTargets(actions), "padding", cropped),
        "zero-padded noise, whole chunks": Fault(ZeroPaddedNoise(actions), "noise", narrow),
    }


def of_any(means: Tensor, length: int) -> dict[str, Fault]:
    return {
        "action_is_pad": Fault(ActionIsPad(length), "whole chunks", "action_is_pad"),
        "time reversed": Fault(Reversed(), "direction of time", "time runs backwards"),
        "collapse to the mean": Fault(Mean(means), "spread", "the student averages"),
    }
