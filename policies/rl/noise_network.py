"""What is learned of a flow policy's initial noise: its mean for what is observed, and its spread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tactus.hal.json_file import read_json
from tactus.hal.spec import Observation, PolicySpec, SpecError

CONFIG, WEIGHTS = "noise.json", "noise.safetensors"
HIDDEN = 128


class NoiseNetwork(nn.Module):
    """N(m(o), s) for an initial noise [horizon, actions], from the vectors of an observation; at first N(0, 1).

    inputs: their widths, by name. Observations are taken in units of the mean and spread that `look` was shown.
    """

    def __init__(self, inputs: Mapping[str, int], horizon: int, actions: int) -> None:
        super().__init__()
        self.inputs, self.horizon, self.actions = dict(inputs), horizon, actions
        width = sum(self.inputs.values())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
                nn.Linear(HIDDEN, horizon * actions),
            )  # fmt: skip
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]
        self.log_std = nn.Parameter(torch.zeros(horizon, actions))
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.std = nn.Parameter(torch.ones(width), requires_grad=False)

    def forward(self, observations: Sequence[Observation]) -> tuple[Tensor, Tensor]:
        """Mean [B, horizon, actions] and standard deviation [horizon, actions]."""
        seen = ((self._vectors(observations) - self.mean) / self.std).clamp(-5, 5)
        return self.layers(seen).view(-1, self.horizon, self.actions), self.log_std.exp()

    def look(self, observations: Sequence[Observation]) -> None:
        """Take the units that observations come in from these."""
        seen = self._vectors(observations)
        std = seen.std(0)
        self.mean.data = seen.mean(0)
        self.std.data = torch.where(std > 1e-4, std, torch.ones_like(std))

    def _vectors(self, observations: Sequence[Observation]) -> Tensor:
        rows = [
            np.concatenate([np.asarray(one.arrays[name], np.float32).reshape(-1) for name in self.inputs])
            for one in observations
        ]
        return torch.from_numpy(np.stack(rows))

    def save(self, folder: Path) -> None:
        """noise.json and noise.safetensors."""
        about = {"inputs": self.inputs, "horizon": self.horizon, "actions": self.actions}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(about, indent=1))
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)


def network_for(spec: PolicySpec, horizon: int, actions: int) -> NoiseNetwork:
    """For what a policy observes. Raises SpecError if that is pictures alone."""
    ticks = len(spec.observation_offsets)
    vectors = {name: ticks * int(np.prod(f.shape)) for name, f in spec.inputs.items() if not f.is_image}
    if not vectors:
        raise SpecError(
            f"method: noise is learned from the vectors of an observation; {spec.name} reads "
            f"{', '.join(spec.inputs) or 'nothing'}; the other methods can be had"
        )
    return NoiseNetwork(vectors, horizon, actions)


def load(folder: Path) -> NoiseNetwork:
    """What `save` wrote. Raises SpecError for anything else."""
    try:
        about = read_json(folder / CONFIG, dict)
        network = NoiseNetwork(about["inputs"], int(about["horizon"]), int(about["actions"]))
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise SpecError(f"noise: {folder} holds no learned noise: {error}") from error
    return network
