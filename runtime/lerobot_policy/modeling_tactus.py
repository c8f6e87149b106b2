"""A LeRobot policy without a model: it asks a policy node, over a link and a session for each row of a batch."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from tactus.hal.spec import Feature, Observation, PolicySpec, RobotSpec
from tactus.runtime.lerobot_policy.configuration_tactus import TactusConfig
from tactus.runtime.robot_node.history import stacked
from tactus.runtime.wire.config import ClientCurve
from tactus.runtime.wire.keys import client_keys
from tactus.runtime.wire.link import Link

Arrays = dict[str, np.ndarray]


class TactusPolicy(PreTrainedPolicy):
    """`reset` begins an episode in every row. A row's ticks are counted by the calls of select_action, and its episodes
    as lerobot-eval counts them: row i of the n-th batch of B is episode n·B + i, with noise of its own.

    Raises LinkError, ValueError with the reason if the node cannot be had, refuses, or cannot answer.
    """

    config_class = TactusConfig  # pyright: ignore[reportAssignmentType]
    name = "tactus"  # pyright: ignore[reportAssignmentType]

    def __init__(self, config: TactusConfig, **unused: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self.config: TactusConfig = config
        self._links: list[Link] = []
        self._spec: PolicySpec | None = None
        self._batches = -1
        self.reset()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, *, config: Any = None, **unused: Any) -> TactusPolicy:
        """There are no weights: a folder holds the configuration, and processors that do nothing."""
        return cls(config or TactusConfig.from_pretrained(pretrained_name_or_path))  # pyright: ignore[reportArgumentType]

    def get_optim_params(self) -> dict:
        raise NotImplementedError("a policy node is not trained here; train what it serves")

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        raise NotImplementedError("a policy node is not trained here; train what it serves")

    def reset(self) -> None:
        self._tick = -1
        self._tasks: list[str] = []
        self._left: deque[Tensor] = deque()
        self._seen: list[deque[Observation]] = []

    def select_action(self, batch: dict[str, Any], **unused: Any) -> Tensor:
        """The tick's actions [B, A]."""
        self._observe(batch)
        if not self._left:
            assert self._spec is not None
            steps = self.config.n_action_steps or self._spec.n_action_steps or self._spec.horizon
            self._left.extend(self._ask()[:, :steps].unbind(1))
        return self._left.popleft()

    def predict_action_chunk(self, batch: dict[str, Any], **unused: Any) -> Tensor:
        """The chunk for this observation, [B, H, A]."""
        self._observe(batch)
        return self._ask()

    def _observe(self, batch: dict[str, Any]) -> None:
        """A tick has begun. At an episode's first one, links are introduced and episodes opened."""
        self._tick += 1
        needed = self._spec is None or not self._left or len(self._spec.observation_offsets) > 1
        if not needed:
            return
        rows = _rows(batch)
        self._connect(rows)
        assert self._spec is not None
        if not self._seen:
            self._batches += 1
            task = batch.get("task", "")
            self._tasks = [task] * len(rows) if isinstance(task, str) else [*task]
            length = 1 - min(self._spec.observation_offsets)
            self._seen = [deque(maxlen=length) for _ in rows]
            for row, link in enumerate(self._links):
                link.reset(self._batches * len(rows) + row, self.config.seed, self._tasks[row])
        for seen, arrays, task in zip(self._seen, rows, self._tasks, strict=True):
            seen.append(Observation(arrays, {}, self._tick, task))

    def _connect(self, rows: list[Arrays]) -> None:
        """A link for each row. LeRobot states shapes only: what else the node compares, it is not told."""
        if len(self._links) == len(rows):
            return
        self.close()
        features = {name: Feature(array.shape, str(array.dtype), unit="") for name, array in rows[0].items()}
        assert self.config.action_feature is not None
        action = Feature(tuple(self.config.action_feature.shape), "float32", unit="")
        robot = RobotSpec(self.config.robot, self.config.fps, features, action)
        keys = client_keys(ClientCurve(key=self.config.key, server=self.config.server))
        for _ in rows:
            self._links.append(Link(self.config.endpoint, keys=keys, insecure=self.config.insecure))
            self._spec = self._links[-1].hello(robot, self.config.wait_s, real_time=False)

    def _ask(self) -> Tensor:
        """A chunk for every row's newest observation."""
        assert self._spec is not None
        for link, seen in zip(self._links, self._seen, strict=True):
            now = seen[-1]
            arrays = stacked(seen, self._tick, self._spec.observation_offsets, [*self._spec.inputs])
            link.request(Observation(arrays, {}, now.tick, now.task), 0, 0)
        return torch.from_numpy(np.stack([self._answer(link) for link in self._links])).to(self.config.device)

    def _answer(self, link: Link) -> np.ndarray:
        give_up_s = time.monotonic() + self.config.wait_s
        while time.monotonic() < give_up_s:
            link.wait(0.1)
            for reply in link.poll():
                if reply.chunk is None:
                    raise ValueError(f"the policy node reports {reply.error}")
                return np.array(reply.chunk.actions)
        raise ValueError(f"no chunk within {self.config.wait_s:g} s; is {link.endpoint} busy?")

    def close(self) -> None:
        """Say goodbye to the node."""
        for link in self._links:
            link.close()
        self._links = []


def _rows(batch: dict[str, Any]) -> list[Arrays]:
    """A batch's observations, row by row, as a robot of ours gives them: pictures uint8[H, W, 3] again, which they were
    before LeRobot divided them by 255."""
    arrays = {name: _array(value) for name, value in batch.items() if name.startswith("observation") and _fits(value)}
    if not arrays:
        raise ValueError(f"no observation in a batch of {', '.join(batch)}")
    return [{name: array[row] for name, array in arrays.items()} for row in range(len(next(iter(arrays.values()))))]


def _fits(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim in (2, 4)


def _array(value: Tensor) -> np.ndarray:
    if value.ndim == 2:
        return value.to("cpu").numpy()
    if value.dtype != torch.uint8:
        value = (value.float() * 255).round().to(torch.uint8)
    return np.ascontiguousarray(value.permute(0, 2, 3, 1).to("cpu").numpy())
