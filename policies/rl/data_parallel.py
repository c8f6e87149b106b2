"""One learner in several processes: all have the same rollouts, each takes its share of a minibatch, and all make the
same step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

NORM = 1.0
"""Largest norm of a gradient."""


def processes() -> int:
    """How many there are; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(count: int) -> range:
    """The rows of a minibatch that are this process's."""
    return range(dist.get_rank() if processes() > 1 else 0, count, processes())


def total(value: Tensor) -> Tensor:
    """Over all processes."""
    if processes() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def step(optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter], loss: Tensor) -> None:
    """By the gradient of all processes' losses together; each process's is that of its share, divided by the whole."""
    optimizer.zero_grad()
    loss.backward()
    for tensor in trained:
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
        if processes() > 1:
            dist.all_reduce(tensor.grad)
    nn.utils.clip_grad_norm_(trained, NORM)
    optimizer.step()


def broadcast(packed: Sequence[bytes]) -> list[bytes]:
    """The first process's, in every process; never pickled."""
    if processes() == 1:
        return [*packed]
    count = torch.tensor([len(packed)])
    dist.broadcast(count, 0)
    if not int(count):
        return []
    sizes = torch.tensor([len(one) for one in packed] or [0] * int(count), dtype=torch.int64)
    dist.broadcast(sizes, 0)
    whole = bytearray(b"".join(packed)) or bytearray(int(sizes.sum()))
    dist.broadcast(torch.frombuffer(whole, dtype=torch.uint8), 0)
    ends = np.cumsum(sizes.numpy())
    return [bytes(whole[end - size : end]) for end, size in zip(ends, sizes.tolist(), strict=True)]
