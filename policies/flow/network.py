"""The flow policy's network, and how it is saved and loaded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tactus.hal.spec import Feature, SpecError
from tactus.policies.flow_model import NUM_STEPS

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FREQUENCIES = 16
FARTHEST = 10.0
"""Standard deviations from the mean at which observations are cut off: a quaternion that flips its sign, say."""


@dataclass(frozen=True)
class Shape:
    """What is needed to build the network: config.json.

    inputs: vectors, concatenated in this order. offsets: the ticks it sees, as PolicySpec.observation_offsets.
    hidden, blocks: width and number of the residual blocks. num_steps: Euler steps from noise to action.
    """

    inputs: dict[str, Feature]
    action: Feature
    horizon: int
    fps: float | None = None
    offsets: tuple[int, ...] = (0,)
    hidden: int = 320
    blocks: int = 3
    num_steps: int = NUM_STEPS

    def __post_init__(self) -> None:
        if not self.inputs or any(len(feature.shape) != 1 for feature in (*self.inputs.values(), self.action)):
            raise SpecError("a flow policy takes vectors, at least one, and gives a vector")
        if min(self.horizon, self.hidden, self.blocks, self.num_steps) < 1:
            raise SpecError("horizon, hidden, blocks and num_steps must be positive")

    @property
    def width(self) -> int:
        """Numbers in one observation."""
        return sum(feature.shape[0] for feature in self.inputs.values())

    def to_dict(self) -> dict[str, Any]:
        features = {"inputs": {k: f.to_dict() for k, f in self.inputs.items()}, "action": self.action.to_dict()}
        return {"type": "flow", **vars(self), **features}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Shape:
        if data["type"] != "flow":
            raise ValueError(f"its type is {data['type']!r:.40}, not 'flow'")
        sizes = {key: int(data[key]) for key in ("horizon", "hidden", "blocks")}
        return cls(
            inputs={str(name): Feature.from_dict(feature) for name, feature in data["inputs"].items()},
            action=Feature.from_dict(data["action"]),
            fps=None if data["fps"] is None else float(data["fps"]),
            offsets=tuple(int(offset) for offset in data["offsets"]),
            num_steps=int(data.get("num_steps", NUM_STEPS)),
            **sizes,
        )


def see(history: Tensor) -> Tensor:
    """What the network gets of observations [B, len(offsets), width], oldest first: [B, len(offsets)·width].

    The newest, and how it differs from the older ones: motion is too small to be seen between two positions.
    """
    newest = history[:, -1:]
    return torch.cat([newest, newest - history[:, :-1]], dim=1).flatten(1)


class FlowNetwork(nn.Module):
    """v(x_t, t | observation) for chunks x [B, H, A] in units of standard deviations; t = 1 is noise, 0 the action."""

    observation_mean: Tensor
    observation_std: Tensor
    action_mean: Tensor
    action_std: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        flat = shape.horizon * shape.action.shape[0]
        self.chunk = nn.Linear(flat, shape.hidden)
        self.observation = nn.Linear(len(shape.offsets) * shape.width, shape.hidden)
        self.time = nn.Linear(2 * FREQUENCIES, shape.hidden)
        self.blocks = nn.ModuleList(_block(shape.hidden) for _ in range(shape.blocks))
        self.out = nn.Sequential(nn.LayerNorm(shape.hidden), nn.Linear(shape.hidden, flat))
        for name, width in (("observation", self.observation.in_features), ("action", shape.action.shape[0])):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_std", torch.ones(width))

    def forward(self, x: Tensor, time: Tensor, observation: Tensor) -> Tensor:
        """x: [B, H, A]. time: [B]. observation: of `see`, in its own units."""
        seen = ((observation - self.observation_mean) / self.observation_std).clamp(-FARTHEST, FARTHEST)
        powers = torch.arange(FREQUENCIES, device=x.device) * (math.log(100.0) / FREQUENCIES)
        angles = math.pi * time[:, None] * torch.exp(powers)
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        hidden = self.chunk(x.flatten(1)) + self.observation(seen) + self.time(waves)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.out(hidden).view_as(x)


def _block(hidden: int) -> nn.Module:
    wide = 2 * hidden
    return nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, wide), nn.SiLU(), nn.Linear(wide, hidden))


def save(network: FlowNetwork, folder: Path, num_steps: int | None = None) -> None:
    """Write config.json and model.safetensors. num_steps: another number of Euler steps than the network came with."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = replace(network.shape, num_steps=num_steps or network.shape.num_steps)
    (folder / CONFIG).write_text(json.dumps(shape.to_dict(), indent=1))
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS)


def load(folder: Path) -> FlowNetwork:
    """What `save` wrote, in evaluation mode. Raises SpecError naming the file and what is wrong with it."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise SpecError(f"policy.path: {str(folder)!r} holds no {name}")
    try:
        shape = Shape.from_dict(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"policy.path: {str(folder / CONFIG)!r} cannot be read: {error!r:.200}") from error
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise SpecError(f"policy.path: {str(folder / WEIGHTS)!r} cannot be read: {error}") from error
    network = FlowNetwork(shape)
    _check(weights, network, folder / WEIGHTS)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def _check(weights: dict[str, Tensor], network: FlowNetwork, file: Path) -> None:
    expected = network.state_dict()
    wrong = [f"{name} is missing" for name in expected if name not in weights]
    for name, tensor in weights.items():
        if name not in expected:
            wrong.append(f"{name} is not part of this network")
        elif tensor.shape != expected[name].shape:
            wrong.append(f"{name} is {list(tensor.shape)}, expected {list(expected[name].shape)}")
        elif not tensor.isfinite().all():
            wrong.append(f"{name} holds numbers that are not finite")
        elif name.endswith("_std") and not (tensor > 0).all():
            wrong.append(f"{name} holds a standard deviation that is not positive")
    if wrong:
        raise SpecError(f"policy.path: {str(file)!r} does not fit {CONFIG}: {'; '.join(wrong[:5])}")
