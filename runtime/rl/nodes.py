"""The policy nodes that rollouts are played with: of our own, or those that are there already."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tactus.runtime.evaluation.results import ResultsError
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.rl.policy_process import PolicyProcess, PolicyProcessConfig
from tactus.runtime.wire.keys import ClientKeys
from tactus.runtime.wire.weights import publish

if TYPE_CHECKING:
    from tactus.policies.rl.explorer import ExplorerPolicy

PUBLISH_S = 60.0
RESTARTS = 5
"""Deaths of our own policy node in a row, with nothing published in between, after which it is given up."""


class OwnNode:
    """A process of ours, started again at the same address if it dies, with the weights it had."""

    def __init__(self, config: PolicyProcessConfig, log: Path) -> None:
        self._log = log
        self._process = PolicyProcess(config, log)
        self._config = replace(config, bind=self._process.endpoint)
        self._published: tuple[int, Mapping[str, np.ndarray]] | None = None
        self._deaths = 0

    @property
    def endpoints(self) -> list[str]:
        return [self._process.endpoint]

    @property
    def pid(self) -> int:
        return self._process.pid

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """For episodes that begin from now on."""
        self._published = version, weights
        self.revive()
        publish(self._process.endpoint, version, weights, PUBLISH_S)
        self._deaths = 0

    def revive(self) -> bool:
        """Start it again if it died; whether it had. Raises ResultsError if it keeps dying."""
        if not self._process.died:
            return False
        self._deaths += 1
        if self._deaths > RESTARTS:
            raise ResultsError(f"the policy node keeps dying; its last words are in {self._log}")
        self._process.close()
        self._process = PolicyProcess(self._config, self._log)
        if self._published is not None:
            publish(self._process.endpoint, *self._published, PUBLISH_S)
        return True

    def close(self) -> None:
        """End it."""
        self._process.close()


class InnerNode:
    """A thread of the learner's own process, which serves the very weights that it changes: one copy of the model."""

    def __init__(self, explorer: ExplorerPolicy, virtual_batch: int) -> None:
        self._explorer = explorer
        self._node = PolicyNode(explorer, "tcp://127.0.0.1:*", virtual_batch=virtual_batch)
        self._thread = threading.Thread(target=self._node.run, name="policy node", daemon=True)
        self._thread.start()
        self.endpoints = [self._node.endpoint]

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """They are there already: this is what they are called."""
        self._explorer.adopt(version)

    def revive(self) -> bool:
        """It lives as long as the learner."""
        return False

    def close(self) -> None:
        """End it."""
        self._node.stop()
        self._thread.join()


class OtherNodes:
    """Those at these addresses, started with --explore and --weights_from: somebody else sees to them."""

    def __init__(self, endpoints: Sequence[str], keys: ClientKeys | None) -> None:
        self.endpoints, self._keys = [*endpoints], keys

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """For episodes that begin from now on, at every one of them."""
        for endpoint in self.endpoints:
            publish(endpoint, version, weights, PUBLISH_S, self._keys)

    def revive(self) -> bool:
        """They are not ours to start."""
        return False

    def close(self) -> None:
        """Nothing to end."""
