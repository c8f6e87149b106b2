"""The workers of an evaluation as actors of a Ray cluster, one core each.

Every node of the cluster needs Tactus and the robot's packages installed.

Ray carries orders and answers; observations and chunks go straight to the policy node, as ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

from tactus.runtime.evaluation.results import ResultsError
from tactus.runtime.lab.pool import WORKER, Event, Pool, dealt

try:
    import ray
    from ray.exceptions import RayActorError, RayError
except ImportError as error:
    raise ResultsError("--engine=ray needs Ray: install tactus[cluster]") from error

CONNECT_TIMEOUT_S = 5.0


class RayPool(Pool):
    """config: an encoded WorkerConfig. nodes: each policy's, by name; every Ray node must reach them.

    kind: the class of worker. address: auto, ray://HOST:PORT or HOST:PORT; None starts a cluster on this machine and
    ends it with `close`. Raises ResultsError if there is no cluster at the address.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        nodes: Mapping[str, Sequence[str]],
        address: str | None,
        kind: str = WORKER,
    ) -> None:
        self._kind = kind
        self._config = config
        self._nodes = nodes
        self._actors: list[Any] = []
        self._pending: dict[Any, int] = {}
        threads = {"env_vars": {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}}
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "runtime_env": threads}
        if address is None:
            options["include_dashboard"] = False
        if address is not None:
            _check_reachable(address)
        try:
            ray.init(address=address or "local", **options)
        except (ConnectionError, RayError, RuntimeError, ValueError) as error:
            raise ResultsError(f"ray_address: no Ray cluster at {address}: {error}") from error
        self._actor = ray.remote(max_restarts=0, max_task_retries=0)(_Actor)

    def start(self) -> int:
        worker = len(self._actors)
        actor = self._actor.options(num_cpus=1, scheduling_strategy="SPREAD")
        self._actors.append(actor.remote(self._kind, self._config, dealt(self._nodes, worker)))
        return worker

    def give(self, worker: int, order: Mapping[str, Any]) -> None:
        self._pending[self._actors[worker].obey.remote(dict(order))] = worker

    def wait(self, timeout_s: float) -> list[Event]:
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        return [self._event(reference) for reference in ready]

    def _event(self, reference: Any) -> Event:
        worker = self._pending.pop(reference)
        try:
            return Event(worker, ray.get(reference))
        except RayActorError as error:
            return Event(worker, None, str(error))
        except RayError as error:
            ray.kill(self._actors[worker])
            return Event(worker, None, str(error))

    def close(self) -> None:
        for actor in self._actors:
            with contextlib.suppress(RayError):
                ray.kill(actor)
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes where no cluster listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ResultsError(
            f"ray_address: no Ray cluster at {address}: {error}; accepted: auto, HOST:PORT or ray://HOST:PORT"
        ) from error


class _Actor:
    """Ray's end of a worker; imported where it runs."""

    def __init__(self, kind: str, config: Mapping[str, Any], endpoints: Mapping[str, str]) -> None:
        self._worker = resolve_name(kind)(config, endpoints)

    def obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        return self._worker.obey(order)
