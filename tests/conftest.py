"""Fixtures: real nodes in real threads or processes on loopback, and a LIBERO that needs no hub."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from policies.policy import Policy  # noqa: E402
from runtime.policy_node import PolicyNode  # noqa: E402

Serve = Callable[[Policy], PolicyNode]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start policy nodes on free loopback ports, each in a thread of this process; stopped afterwards."""
    running: list[tuple[PolicyNode, threading.Thread]] = []

    def start(policy: Policy, bind: str = "tcp://127.0.0.1:*") -> PolicyNode:
        node = PolicyNode(policy, bind)
        thread = threading.Thread(target=node.run, daemon=True)
        thread.start()
        running.append((node, thread))
        return node

    yield start
    for node, thread in running:
        node.stop()
        thread.join(timeout=5)
        assert not thread.is_alive(), "a policy node did not stop"
