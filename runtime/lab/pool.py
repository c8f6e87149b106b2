"""The worker processes of an evaluation: started, given orders, and listened to until they exit."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

WORKER = "tactus.runtime.lab.worker:Worker"
OUTPUT_LINES = 12
"""Lines of an exited worker's standard error that are repeated."""


class Event(NamedTuple):
    """A worker's answer to an order; or None, and the end of its output: it has exited."""

    worker: int
    answer: dict[str, Any] | None
    exit_output: str = ""


class Pool(ABC):
    """Workers by number. An order is one of tactus.runtime.lab.worker's; a worker has at most one at a time."""

    @abstractmethod
    def start(self) -> int:
        """Start one more worker and return its number; it need not be up yet."""

    @abstractmethod
    def give(self, worker: int, order: Mapping[str, Any]) -> None:
        """Hand an order over; never blocks. A worker that is gone already is an event."""

    @abstractmethod
    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened; waits up to timeout_s for the first of it."""

    @abstractmethod
    def close(self) -> None:
        """End all workers."""


def dealt(nodes: Mapping[str, Sequence[str]], worker: int) -> dict[str, str]:
    """A worker's node of each policy: where a policy has several, workers take them in turn."""
    return {name: endpoints[worker % len(endpoints)] for name, endpoints in nodes.items()}


class ProcessPool(Pool):
    """config: an encoded WorkerConfig. nodes: each policy's, by name. logs: folder for what workers print. kind: the
    class of worker; its module is the program."""

    def __init__(
        self, config: Mapping[str, Any], nodes: Mapping[str, Sequence[str]], logs: Path, kind: str = WORKER
    ) -> None:
        self._program = kind.partition(":")[0]
        self._config = config
        self._nodes = nodes
        self._logs = logs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._unread: dict[int, bytes] = {}
        self._selector = selectors.DefaultSelector()
        logs.mkdir(parents=True, exist_ok=True)

    def start(self) -> int:
        worker = len(self._processes)
        with self._log(worker).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", self._program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._processes.append(process)
        self._unread[worker] = b""
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        self.give(worker, {"config": self._config, "endpoints": dealt(self._nodes, worker)})
        return worker

    def give(self, worker: int, order: Mapping[str, Any]) -> None:
        stdin = self._processes[worker].stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            return  # its standard output has ended too, which `wait` sees

    def wait(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        for key, _ in self._selector.select(timeout_s):
            worker = key.data
            data = os.read(key.fd, 1 << 20)
            *lines, self._unread[worker] = (self._unread[worker] + data).split(b"\n")
            events += [Event(worker, json.loads(line)) for line in lines]
            if not data:
                self._selector.unregister(key.fileobj)
                status = self._processes[worker].wait()
                events.append(Event(worker, None, f"exit status {status}\n{self._exit_output(worker)}"))
        return events

    def _log(self, worker: int) -> Path:
        return self._logs / f"worker_{worker}.log"

    def _exit_output(self, worker: int) -> str:
        return "\n".join(self._log(worker).read_text(errors="replace").splitlines()[-OUTPUT_LINES:])

    def close(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()  # an idle worker ends now
        for process in self._processes:
            try:
                process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._selector.close()
