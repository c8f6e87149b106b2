"""A policy node of a practice, or of a measurement: a process of its own that holds the copy of the model which plays.

As a command, `python -m tactus.runtime.rl.policy_process`: its config is the first line of standard input, its endpoint
the first line of standard output, and it ends when standard input does: with whoever started it, however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import tactus.hal.backends
import tactus.policies.builtin
from tactus.hal.config import Config, Count, encode, received
from tactus.policies.policy import PolicyConfig
from tactus.policies.rl.config import ExploreConfig
from tactus.runtime.child_process import end
from tactus.runtime.evaluation.results import ResultsError
from tactus.runtime.policy_node.limits import ANYBODY

REGISTERED = (tactus.hal.backends, tactus.policies.builtin)
LAST_LINES = 5


class PolicyProcessConfig(Config):
    """What is served, and how. explore: not given: it only answers. allow: of wire.handshake.ALLOWANCES. bind: where;
    port 0 or * for any."""

    policy: PolicyConfig
    explore: ExploreConfig | None = None
    allow: tuple[str, ...] = ()
    virtual_batch: Count = 1
    batch_wait_ms: float = 10.0
    bind: str = "tcp://127.0.0.1:*"


class PolicyProcess:
    """log: what it prints. Raises ResultsError with its last lines if it does not come up."""

    def __init__(self, config: PolicyProcessConfig, log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tactus.runtime.rl.policy_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(encode(config)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it says on its way out why
        self.endpoint = self._process.stdout.readline().strip()
        if not self.endpoint:
            self._process.wait()
            last = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
            raise ResultsError(f"the policy node did not start:\n{last}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def died(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End it."""
        assert self._process.stdout is not None
        end(self._process)
        self._process.stdout.close()


def main() -> int:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for whoever started it
    from tactus.runtime.logs import log_to
    from tactus.runtime.policy_node.inference import explored, make
    from tactus.runtime.policy_node.node import PolicyNode

    log_to(sys.stderr, "text", "policy node: %(message)s")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        given: dict[str, Any] = json.loads(sys.stdin.readline())
        config = received(PolicyProcessConfig, given)
        policy = make(config.policy)
        node = PolicyNode(
            policy if config.explore is None else explored(policy, config.explore),
            config.bind,
            allow=config.allow,
            batch_wait_ms=config.batch_wait_ms,
            virtual_batch=config.virtual_batch,
            weights_from=None if config.explore is None else ANYBODY,
        )
    except (ValueError, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2

    def until_input_ends() -> None:
        sys.stdin.read()
        node.stop()

    threading.Thread(target=until_input_ends, daemon=True).start()
    out.write(node.endpoint + "\n")
    node.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
