"""How each family of LeRobot policies predicts one chunk per row of a batch, with a generator per row.

Noise is drawn row by row, by the call and in the order in which LeRobot draws it for a batch of one from the
global generator: seeded alike, both get the same bits, and no row knows who shares its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor

from tactus.policies.flow_model import draw_noise
from tactus.policies.guidance import Prefixes

Batch = dict[str, Any]
ChunkPredictor = Callable[[Batch, Sequence[torch.Generator], Prefixes | None], Tensor]
"""Batch as the preprocessor leaves it (with a time axis [B, T, …] if the policy has a history), one CPU generator
per row, and the rows' prefixes -> [B, H, A], normalised."""

FLOW = ("smolvla", "pi0", "pi05")
"""Policies that integrate a velocity and can be guided."""


def chunk_predictor(policy: Any, noise_scale: float) -> ChunkPredictor:
    """The one for this policy; LeRobot's own `predict_action_chunk`, row by row, for those not known here.

    noise_scale: of those in FLOW; the others have none.
    """
    kind = policy.config.type
    if kind in ("act", "keypoints"):
        return lambda batch, generators, prefixes: policy.predict_action_chunk(batch)
    if kind == "diffusion":
        return lambda batch, generators, prefixes: _diffusion(policy, batch, generators)
    if kind in FLOW:
        return lambda batch, generators, prefixes: _flow(policy, batch, generators, prefixes, noise_scale)
    if kind == "vqbet":
        return lambda batch, generators, prefixes: _alone(lambda row: _vqbet(policy, row), batch, generators)
    return lambda batch, generators, prefixes: _alone(lambda row: _any(policy, row), batch, generators)


def _diffusion(policy: Any, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
    """All the horizon from the current step on, where LeRobot cuts after n_action_steps."""
    config, model = policy.config, policy.diffusion
    if config.image_features:
        batch = {**batch, OBS_IMAGES: torch.stack([batch[key] for key in config.image_features], dim=-4)}
    condition = model._prepare_global_conditioning(batch)
    shape = (1, config.horizon, config.action_feature.shape[0])
    rows = [torch.randn(size=shape, dtype=condition.dtype, generator=generator) for generator in generators]
    noise = torch.cat(rows).to(condition.device)
    actions = model.conditional_sample(len(rows), global_cond=condition, generator=list(generators), noise=noise)
    return actions[:, config.n_obs_steps - 1 :]


def _flow(
    policy: Any, batch: Batch, generators: Sequence[torch.Generator], prefixes: Prefixes | None, noise_scale: float
) -> Tensor:
    noise = draw_noise(generators, policy.config.chunk_size, policy.config.max_action_dim, noise_scale)
    guided = {} if prefixes is None else {"prev_chunk_left_over": prefixes}
    return policy.predict_action_chunk(batch, noise=noise.to(batch[OBS_STATE].device), **guided)


def _vqbet(policy: Any, row: Batch) -> Tensor:
    images = torch.stack([row[key] for key in policy.config.image_features], dim=-4)
    chunk = policy.vqbet({OBS_IMAGES: images, OBS_STATE: row[OBS_STATE]}, rollout=True)
    return chunk[:, : policy.config.action_chunk_size]


def _any(policy: Any, row: Batch) -> Tensor:
    policy.reset()
    return policy.predict_action_chunk({key: value for key, value in row.items() if key != ACTION})


def _alone(predict: Callable[[Batch], Tensor], batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
    """Row by row, the global generators standing in for the row's own: for policies that draw where they please."""
    chunks = []
    for index, generator in enumerate(generators):
        row = {key: _row(value, index) for key, value in batch.items()}
        with torch.random.fork_rng():
            torch.set_rng_state(generator.get_state())
            if torch.cuda.is_available():
                torch.cuda.manual_seed_all(int(torch.randint(2**62, (), generator=generator)))
            chunks.append(predict(row))
            generator.set_state(torch.get_rng_state())
    return torch.cat(chunks)


def _row(value: Any, index: int) -> Any:
    if isinstance(value, Tensor):
        return value[index : index + 1]
    return [value[index]] if isinstance(value, list) else value
