"""Fixtures: real nodes in real threads or processes on loopback, and a LIBERO that needs no hub."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when it is first imported, by whichever test that is

from pages import open_browser

from tactus.hal.libero import LiberoConfig
from tactus.hal.libero.robot import LiberoRobot
from tactus.policies.policy import Policy
from tactus.runtime.policy_node.node import PolicyNode

COPIES = None if "HF_DATASETS_CACHE" in os.environ else TemporaryDirectory(prefix="tactus-tests-")
"""Where Hugging Face's library copies what tests read; the processes of xdist have it from the first."""
if COPIES is not None:
    os.environ["HF_DATASETS_CACHE"] = COPIES.name
pytest_plugins = ["standstill"]
settings.register_profile("shared machine", deadline=None)  # how long an example takes says nothing here
settings.load_profile("shared machine")

Serve = Callable[..., PolicyNode]
MakeLibero = Callable[..., LiberoRobot]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file none of whose tests are wanted is not even imported: torch alone takes 10 s."""
    expression = config.option.markexpr
    if not collection_path.match("test_*.py") or not expression:
        return None
    text = collection_path.read_text()
    whole = {kind for kind in ("slow", "realtime") if re.search(rf"^pytestmark = .*pytest\.mark\.{kind}", text, re.M)}
    unwanted = any(f"not {kind}" in expression for kind in whole)
    return True if unwanted or (expression.endswith(" and realtime") and "realtime" not in text) else None


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real one, for reports: pages.py."""
    driver = open_browser(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start policy nodes on free loopback ports, each in a thread of this process; stopped afterwards."""
    running: list[tuple[PolicyNode, threading.Thread]] = []

    def start(policy: Policy, bind: str = "tcp://127.0.0.1:*", **options: Any) -> PolicyNode:
        node = PolicyNode(policy, bind, **options)
        thread = threading.Thread(target=node.run, daemon=True)
        thread.start()
        running.append((node, thread))
        return node

    yield start
    for node, thread in running:
        node.stop()
        thread.join(timeout=5)
        assert not thread.is_alive(), "a policy node did not stop"


def new_libero(suite: str = "libero_object", **changes: Any) -> LiberoRobot:
    """A LIBERO robot on primitive assets; nothing is built before its first reset."""
    robot = LiberoConfig(suite=suite, assets="primitive", **changes).make()
    assert isinstance(robot, LiberoRobot)
    return robot


@pytest.fixture
def libero() -> Iterator[MakeLibero]:
    """Makes LIBERO robots and closes them afterwards: a process can hold one renderer at a time."""
    made: list[LiberoRobot] = []

    def make(*args: Any, **changes: Any) -> LiberoRobot:
        made.append(new_libero(*args, **changes))
        return made[-1]

    yield make
    for robot in made:
        robot.close()
