"""A LeRobot checkpoint as a Policy: stacked rows in, its own preprocessing, one forward pass, whole chunks out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import ACTION

from tactus.hal.spec import Chunk, Feature, Observation, PolicySpec
from tactus.policies.guidance import Prefixes, PrefixGuidance, max_weight
from tactus.policies.lerobot.checkpoint import FILLS, load
from tactus.policies.lerobot.chunk_prediction import FLOW, Batch, chunk_predictor
from tactus.policies.lerobot.compiled import Compiled
from tactus.policies.lerobot.config import LeRobotConfig
from tactus.policies.lerobot.flow_model import LeRobotFlow, steps_of
from tactus.policies.lerobot.inputs import Inputs
from tactus.policies.lerobot.normalization import training_range
from tactus.policies.lerobot.relative_actions import RelativeActions
from tactus.policies.lerobot.temporal_ensemble import TemporalEnsemble
from tactus.policies.lerobot.weights import CheckpointError
from tactus.policies.noise import set_state, state_of
from tactus.policies.policy import Policy, Prefix, Request, Session


class LeRobotPolicy(Policy):
    """Inputs: the checkpoint's, images as uint8 HWC; actions float32[H, A] in the units of its training data.
    checkpoint: what was loaded.

    Raises CheckpointError for a checkpoint that cannot be used as it is.
    """

    def __init__(self, config: LeRobotConfig) -> None:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.checkpoint = checkpoint = load(config)
        self._config: Any = checkpoint.config
        self._device = torch.device(self._config.device)
        self._autocast = config.dtype == "bfloat16"
        self._inputs = Inputs(
            self._config, checkpoint.rename, checkpoint.preprocessor, self._device, config.empty_cameras
        )
        self._postprocessor = checkpoint.postprocessor
        history = len(self._inputs.offsets)
        self._relative = RelativeActions(checkpoint.preprocessor, checkpoint.postprocessor, history)
        self._guidance: PrefixGuidance | None = None
        reason = self._cannot_continue(config.compile)
        if reason:
            _check_unguided(config, reason)
        else:
            bound = config.max_guidance_weight or max_weight(steps_of(self._config))
            self._guidance = PrefixGuidance(config.guidance_schedule, bound, config.guidance, config.guidance_horizon)
            _guide(checkpoint.policy, self._guidance)
        if config.noise_scale != 1 and self._config.type not in FLOW:
            kind = self._config.type
            raise CheckpointError(
                f"policy.noise_scale: found {config.noise_scale:g}, but {kind} starts from no flow noise; "
                f"{', '.join(FLOW)} and our own flow do; leave it out"
            )
        self._chunker = chunk_predictor(checkpoint.policy, config.noise_scale)
        if self._config.type in FLOW and config.compile == "none":
            self.flow = LeRobotFlow(
                checkpoint.policy,
                self._prepared,
                self._postprocessed,
                self._relative.on,
                checkpoint.folder,
                checkpoint.name,
                config.noise_scale,
            )
        self.max_batch = config.max_batch
        self.remembers = getattr(self._config, "temporal_ensemble_coeff", None) is not None
        self._generators: dict[str, torch.Generator] = {}
        self._ensembles: dict[str, TemporalEnsemble] = {}
        if checkpoint.reads is not None:  # before torch.compile looks into the config too
            self._try(1)
            _ = getattr(self._config, "n_action_steps", None)  # which is read here alone
            checkpoint.reads.check(config.overrides)
        self._compiled = Compiled(checkpoint.policy, config.compile, self.max_batch)
        shape = self._warm_up()
        steps = config.n_action_steps or getattr(self._config, "n_action_steps", shape[0])
        if config.n_action_steps is not None and steps > shape[0]:
            raise CheckpointError(
                f"policy.n_action_steps: found {steps}; a chunk of {self._config.type} has {shape[0]} actions"
            )
        low, high = ((), ()) if self._relative.on else training_range(self._postprocessor, ACTION, math.prod(shape[1:]))
        self._spec = PolicySpec(
            name=checkpoint.name,
            inputs=self._inputs.features,
            action=Feature(tuple(shape[1:]), "float32", unit="", low=low, high=high),
            horizon=shape[0],
            observation_offsets=self._inputs.offsets,
            takes_prefix=self._guidance is not None,
            fps=config.fps,
            n_action_steps=min(steps, shape[0]),
            casts=True,
            robot=config.robot,
            details=checkpoint.details
            | ({"empty_cameras": ", ".join(sorted({*config.empty_cameras}))} if config.empty_cameras else {}),
            own_names=self._inputs.own_names,
            can_lack=tuple(
                name for name, f in self._inputs.features.items() if f.is_image and self._config.type in FILLS
            ),
        )

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        self._generators[session.id] = torch.Generator().manual_seed(session.seed % 2**63)
        coefficient = getattr(self._config, "temporal_ensemble_coeff", None)
        if coefficient is not None:
            self._ensembles[session.id] = TemporalEnsemble(coefficient, self._config.chunk_size)

    def end(self, session: str) -> None:
        self._generators.pop(session, None)
        self._ensembles.pop(session, None)

    def noise(self, session: str) -> bytes:
        return state_of(self._generators[session])

    def set_noise(self, session: str, state: bytes) -> None:
        set_state(self._generators[session], state)

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        """Images of different sizes (see --allow image_size) cannot share a pass: one pass per size."""
        if self._relative.alone:
            return [chunk for request in requests for chunk in self._pass([request])]
        sizes = [
            tuple(request.observation.arrays[name].shape for name in self._inputs.features) for request in requests
        ]
        chunks: dict[int, Chunk] = {}
        for size in dict.fromkeys(sizes):
            rows = [row for row, found in enumerate(sizes) if found == size]
            chunks |= zip(rows, self._pass([requests[row] for row in rows]), strict=True)
        return [chunks[row] for row in range(len(requests))]

    def as_raw(self, actions: np.ndarray) -> np.ndarray:
        if self._relative.on or self.flow is None:
            return actions if self._relative.on else super().as_raw(actions)
        return self.flow.encode(torch.tensor(actions)[None])[0, :, : self.flow.actions].numpy()

    def _prepared(self, observations: Sequence[Observation]) -> Batch:
        return self._inputs.batch([one.arrays for one in observations], [one.task for one in observations])

    def _postprocessed(self, raw: torch.Tensor) -> torch.Tensor:
        """What a robot is sent of normalised actions, for the observations that were prepared last."""
        self._relative.anchor(len(raw))
        return self._postprocessor(raw.to(self._device)).cpu()

    def _pass(self, requests: Sequence[Request]) -> list[Chunk]:
        # the exact VJP needs a backward pass, which inference mode forbids
        guided = self._guidance is not None and any(request.prefix is not None for request in requests)
        with torch.no_grad() if guided else torch.inference_mode():
            times = [time.monotonic_ns()]
            filled = self._compiled.fill(requests)
            batch = self._prepared([request.observation for request in filled])
            self._relative.anchor(len(requests))
            prefixes = self._prefixes(requests) if guided else None
            times.append(time.monotonic_ns())
            generators = [self._generators[request.session] for request in requests]
            spare = [torch.Generator().manual_seed(0) for _ in filled[len(requests) :]]
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
                raw = self._chunker(batch, generators + spare, prefixes)[: len(requests)].float()
            if self._device.type != "cpu":
                raw = raw.cpu()  # waits for the device
            times.append(time.monotonic_ns())
            if self._ensembles and not self._relative.on:
                raw = self._ensemble(raw, requests)
            actions = self._postprocessor(raw.to(self._device)).cpu()
            if self._relative.on:  # only what is executed means the same at every observation
                actions = self._ensemble(actions, requests) if self._ensembles else actions
                raw = actions
            actions = actions.numpy()
            times.append(time.monotonic_ns())
        spent_ms = [(after - before) / 1e6 for before, after in pairwise(times)]
        timings_ms = {"preprocess": spent_ms[0], "infer": spent_ms[1], "postprocess": spent_ms[2]}
        keep = self._guidance is not None
        return [
            Chunk(request.observation.tick, actions[row], timings_ms, raw[row].numpy() if keep else None)
            for row, request in enumerate(requests)
        ]

    def _prefixes(self, requests: Sequence[Request]) -> Prefixes | None:
        """Of a batch that has just been preprocessed."""
        assert self._guidance is not None
        prefixes = [request.prefix for request in requests]
        if self._relative.on:
            prefixes = [
                prefix and Prefix(self._relative.prefix(prefix.actions, row), prefix.delay)
                for row, prefix in enumerate(prefixes)
            ]
        return self._guidance.stack(prefixes, self._config.chunk_size, self._config.max_action_dim, self._device)

    def _ensemble(self, chunks: torch.Tensor, requests: Sequence[Request]) -> torch.Tensor:
        return torch.stack(
            [
                self._ensembles[request.session].update(chunk, request.observation.tick)
                for request, chunk in zip(requests, chunks, strict=True)
            ]
        )

    def _cannot_continue(self, compiled: str) -> str:
        """Why this policy cannot be given a prefix; empty if it can."""
        kind = self._config.type
        if kind not in FLOW:
            return f"{kind} does not continue chunks; {', '.join(FLOW)} do"
        if compiled != "none":
            return f"a compiled policy (policy.compile={compiled}) does not continue chunks; one with none does"
        if self._relative.on and not self._relative.reversible:
            return "its postprocessor has steps that cannot be gone back through"
        return ""

    def _warm_up(self) -> torch.Size:
        """The shape [H, A] of a chunk, from a pass over zeros of each batch size that has to be tried."""
        shape = torch.Size()
        for rows in self._compiled.buckets:
            for _ in range(self._compiled.warm_ups):
                shape = self._try(rows)
        return shape

    def _try(self, rows: int) -> torch.Size:
        """The shape [H, A] of a chunk, from a pass over zeros. Raises CheckpointError if none can be had."""
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            batch = self._inputs.batch([self._inputs.zeros()] * rows, [""] * rows)
            self._relative.anchor(rows)
            try:
                raw = self._chunker(batch, [torch.Generator() for _ in range(rows)], None)
                return self._postprocessor(raw).shape[1:]
            except torch.OutOfMemoryError as error:
                raise CheckpointError(
                    f"out of memory in a forward pass of {rows} robots; choose a smaller policy.max_batch"
                ) from error
            except (KeyError, IndexError, RuntimeError, ValueError, AttributeError, AssertionError) as error:
                raise CheckpointError(
                    f"{self._config.type} cannot predict a chunk from what its config.json lists "
                    f"({', '.join(self._config.input_features)}): {type(error).__name__}: {error}"
                ) from error


def _check_unguided(config: LeRobotConfig, reason: str) -> None:
    """Raise CheckpointError for a key of the guidance that is not at its default, where nothing is guided."""
    default = LeRobotConfig(path=config.path)
    for key in ("guidance", "guidance_schedule", "max_guidance_weight", "guidance_horizon"):
        if getattr(config, key) != getattr(default, key):
            raise CheckpointError(f"policy.{key}: found {getattr(config, key)}, but {reason}; leave it out")


def _guide(policy: Any, guidance: PrefixGuidance) -> None:
    """Put our guidance where LeRobot looks for its own."""
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    policy.config.rtc_config = RTCConfig(enabled=True)
    policy.rtc_processor = policy.model.rtc_processor = guidance
