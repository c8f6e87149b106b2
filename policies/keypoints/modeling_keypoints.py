"""Where things are in each picture, as the instruction has it, and what to do about it.

Each camera has a few convolutions of its own, modulated by the instruction (FiLM, arXiv 1709.07871), whose maps become
expected positions (spatial softmax, arXiv 1504.00702). These, what is seen there, the state and the instruction give a
chunk of actions at once, learned by L1 as ACT's is.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor, nn
from torch.nn import functional

from tactus.policies.keypoints.configuration_keypoints import KeypointsConfig

Batch = dict[str, Any]
WORD_WIDTH, GROUPS = 64, 8


class Modulated(nn.Module):
    """A convolution that the instruction scales and shifts."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2)
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.film = nn.Linear(WORD_WIDTH, 2 * channels)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        scale, shift = self.film(words)[..., None, None].chunk(2, dim=1)
        return functional.relu(self.norm(self.convolution(x)) * (1 + scale) + shift)


class Eye(nn.Module):
    """Of one camera: [B, 3, H, W] in 0 to 1 -> [B, 3·keypoints + channels]: positions x and y in -1 to 1, how sure,
    and what is there on average."""

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.first = Modulated(3, channels // 2, 5, 2)
        self.second = Modulated(channels // 2 + 2, channels, 3, 2)
        self.rest = nn.ModuleList(Modulated(channels, channels, 3, 1) for _ in range(3))
        self.maps = nn.Conv2d(channels, keypoints, 1)

    @property
    def width(self) -> int:
        """Of what it gives."""
        return 3 * self.maps.out_channels + self.maps.in_channels

    def forward(self, picture: Tensor, words: Tensor) -> Tensor:
        x = self.first(2 * picture - 1, words)
        x = self.second(torch.cat([x, _places(x)], dim=1), words)
        for layer in self.rest:
            x = x + layer(x, words)
        maps = self.maps(x).flatten(2)
        attention = maps.softmax(-1)
        where = attention @ _places(x).flatten(2).transpose(1, 2)
        return torch.cat([where.flatten(1), attention.amax(-1), x.mean((2, 3))], dim=1)


class Block(nn.Module):
    """A residual layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class KeypointsPolicy(PreTrainedPolicy):
    """LeRobot's interface to it."""

    config_class = KeypointsConfig  # pyright: ignore[reportAssignmentType]
    name = "keypoints"  # pyright: ignore[reportAssignmentType]

    def __init__(self, config: KeypointsConfig, **kwargs: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self.config: KeypointsConfig = config
        self.cameras = [*config.image_features]
        self.words = nn.EmbeddingBag(config.words + 1, WORD_WIDTH, mode="mean", padding_idx=0)
        self.eyes = nn.ModuleList(Eye(config.channels, config.keypoints) for _ in self.cameras)
        state = config.robot_state_feature.shape[0] if config.robot_state_feature is not None else 0
        seen = sum(eye.width for eye in self.eyes)  # type: ignore[attr-defined]
        self.decide = nn.Sequential(
            nn.Linear(seen + state + WORD_WIDTH, config.width),
            *(Block(config.width) for _ in range(config.blocks)),
            nn.LayerNorm(config.width),
        )
        self.act = nn.Linear(config.width, config.chunk_size * config.action_feature.shape[0])  # type: ignore[union-attr]
        if config.told_dims:
            self.tell = nn.Linear(config.width, len(config.told_dims))
            self.standard = nn.BatchNorm1d(len(config.told_dims), affine=False)
        self.reset()

    def get_optim_params(self) -> Any:
        return self.parameters()

    def reset(self) -> None:
        """An episode begins."""
        self._queue: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    def _decided(self, batch: Batch) -> Tensor:
        """[B, width]."""
        words = self.words(batch[OBS_LANGUAGE_TOKENS])
        seen = [eye(batch[camera], words) for camera, eye in zip(self.cameras, self.eyes, strict=True)]
        state = [batch[OBS_STATE]] if self.config.robot_state_feature is not None else []
        return self.decide(torch.cat([*seen, *state, words], dim=1))

    def _chunk(self, decided: Tensor) -> Tensor:
        """[B, H, A], normalised."""
        return self.act(decided).unflatten(1, (self.config.chunk_size, -1))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        decided = self._decided(batch)
        error = (self._chunk(decided) - batch[ACTION]).abs()
        valid = (~batch["action_is_pad"])[..., None].to(error)
        loss = (error * valid).sum() / (valid.sum() * error.shape[-1]).clamp_min(1)
        if not self.config.told_dims:
            return loss, {"l1_loss": loss.item()}
        self.standard.train(self.training and len(decided) > 1)  # one alone has no spread
        true = self.standard(batch[self.config.told][:, self.config.told_dims].float())
        told = functional.smooth_l1_loss(self.tell(decided).float(), true)
        return loss + self.config.told_weight * told, {"l1_loss": loss.item(), "told_loss": told.item()}

    @torch.no_grad()
    def predict_action_chunk(self, batch: Batch, **kwargs: Any) -> Tensor:
        self.eval()
        return self._chunk(self._decided(batch))

    @torch.no_grad()
    def select_action(self, batch: Batch, **kwargs: Any) -> Tensor:
        if not self._queue:
            self._queue.extend(self.predict_action_chunk(batch)[:, : self.config.n_action_steps].transpose(0, 1))
        return self._queue.popleft()


def _places(x: Tensor) -> Tensor:
    """[B, 2, H, W]: each cell's x and y, -1 to 1."""
    height, width = x.shape[-2:]
    y, across = torch.meshgrid(
        torch.linspace(-1, 1, height, device=x.device), torch.linspace(-1, 1, width, device=x.device), indexing="ij"
    )
    return torch.stack([across, y]).expand(len(x), -1, -1, -1).to(x.dtype)
