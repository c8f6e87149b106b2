"""SmolVLA, PI0 and PI05 seen as flow models, by LeRobot's own code: its prefix, its cache, its denoising step."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from tactus.hal.spec import Observation, SpecError
from tactus.policies.flow_model import FlowModel
from tactus.policies.lerobot.folder import CONFIG, WEIGHTS

STEPS = ("num_steps", "num_inference_steps")
"""What SmolVLA, and the others, call the number of denoising steps."""


class Condition(NamedTuple):
    """velocity: of (x, t), with the prefix in its cache. arguments: of the model, from which the prefix was made."""

    velocity: Callable[[Tensor, Tensor], Tensor]
    arguments: tuple[Any, ...]


class LeRobotFlow(FlowModel):
    """policy: LeRobot's, not compiled. prepare: observations to the batch that it reads. postprocess: normalised
    actions to those that are sent. relative: whether these depend on what was observed. folder: its checkpoint.
    noise_scale: as it is deployed."""

    network: Any

    def __init__(
        self,
        policy: Any,
        prepare: Callable[[Sequence[Observation]], dict[str, Any]],
        postprocess: Callable[[Tensor], Tensor],
        relative: bool,
        folder: Path,
        name: str,
        noise_scale: float,
    ) -> None:
        self.network = policy
        self._postprocess, self._relative = postprocess, relative
        self._model, self._config, self._prepare, self._folder = policy.model, policy.config, prepare, folder
        self.name, self.noise_scale = name, noise_scale
        self.horizon, self.width = self._config.chunk_size, self._config.max_action_dim
        self.actions = self._config.action_feature.shape[0]
        self._steps_key, self.num_steps = steps_key(self._config) or "", steps_of(self._config)

    def condition(self, observations: Sequence[Observation]) -> Condition:
        caught: dict[str, Any] = {}

        def instead(velocity: Any, noise: Tensor, num_steps: int, **rest: Any) -> Tensor:
            caught["velocity"] = velocity
            return noise

        def around(*args: Any, **kwargs: Any) -> Tensor:
            caught["arguments"] = args
            return sample(*args, **kwargs)

        sample = self._model.sample_actions
        noise = torch.zeros(len(observations), self.horizon, self.width, device=next(self.network.parameters()).device)
        with (
            torch.no_grad(),
            mock.patch.object(sys.modules[type(self._model).__module__], "euler_integrate", instead),
            mock.patch.object(self._model, "sample_actions", around),
        ):
            self.network.predict_action_chunk(self._prepare(observations), noise=noise)
        return Condition(**caught)

    def velocity(self, condition: Condition, x: Tensor, t: Tensor) -> Tensor:
        return condition.velocity(x, t)

    def training_velocity(self, condition: Condition, x: Tensor, t: Tensor) -> Tensor:
        """LeRobot's forward gives a loss; what it took the loss of is what its last layer gave."""
        with _given(self._model.action_out_proj) as given:
            self._model.forward(*condition.arguments, actions=x, noise=x, time=t)
        return given[-1]

    @torch.no_grad()
    def decode(self, chunks: Tensor) -> np.ndarray:
        return self._postprocess(chunks[..., : self.actions].float()).numpy()

    def encode(self, actions: Tensor) -> Tensor:
        """By what `decode` makes of 0, 1 and 2 in every place: normalisations are lines."""
        if self._relative:
            raise SpecError(f"{self.name}: its actions are relative to what it observes; they stand for no chunk alone")
        zero, one, two = (self._probe(value, actions.shape[1:]) for value in (0.0, 1.0, 2.0))
        if not torch.allclose(two - one, one - zero, rtol=1e-4, atol=1e-6) or (one == zero).any():
            raise SpecError(f"{self.name}: its postprocessor is no line, and cannot be gone back through")
        chunks = (actions - zero.to(actions)) / (one - zero).to(actions)
        return torch.nn.functional.pad(chunks, (0, self.width - self.actions))

    def _probe(self, value: float, shape: torch.Size) -> Tensor:
        return self._postprocess(torch.full((1, *shape), value))

    def save(self, folder: Path, num_steps: int) -> None:
        self.network.save_pretrained(folder)
        for file in (file for ending in ("*.json", "*.safetensors") for file in self._folder.glob(ending)):
            if file.name not in (WEIGHTS, "train_config.json"):
                shutil.copy2(file, folder / file.name)
        config = json.loads((self._folder / CONFIG).read_text())  # not the loaded one, which guidance has changed
        config[self._steps_key] = num_steps
        (folder / CONFIG).write_text(json.dumps(config, indent=4))


def steps_key(config: Any) -> str | None:
    """What this policy's config calls the number of its denoising steps; None if it has none."""
    return next((key for key in STEPS if hasattr(config, key)), None)


def steps_of(config: Any) -> int:
    """How many denoising steps a policy takes that has any."""
    return getattr(config, steps_key(config) or "")


@contextmanager
def _given(layer: torch.nn.Module) -> Iterator[list[Tensor]]:
    """What the layer gives, call by call."""
    outputs: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        outputs.append(output)

    handle = layer.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()
