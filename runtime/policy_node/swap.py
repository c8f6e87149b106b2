"""Loads a policy beside the one that answers, in a thread that gives way to it.

What is loaded is mostly Python, and Python runs one thread at a time: left alone, the loading thread would make every
operation of a policy that thinks meanwhile wait for its turn. So before each function it calls or returns from
(sys.setprofile) it waits until the policy is done, but for TURN_S after every PAUSE_S:

    node      … | infer ····· | send, receive | infer ····· | send …
    loading   ··|             |···············|             |·····
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tactus.hal.spec import Observation, SpecError
from tactus.policies.policy import Policy, PolicyConfig, Request, Session
from tactus.runtime.policy_node.inference import Ask
from tactus.runtime.policy_node.served_policy import ServedPolicy

log = logging.getLogger("tactus.policy_node")

PAUSE_S, TURN_S = 0.25, 0.005
SWITCH_S = 0.0005
"""The interpreter's switch interval meanwhile: how long the node's thread may have to wait for its turn."""
COPIES = 2
"""Of the weights, while they are loaded: the file's and the model's."""
WARM_UP = "warm-up"

Load = Callable[[Mapping[str, Any]], tuple[Policy, Mapping[str, str]]]
"""A policy's keys as a config file has them -> the policy, and what belongs beside its results. Raises ValueError."""


class SwapOrder(NamedTuple):
    """Who wants it, which policy, and for whom: a session or a robot's name; "" for all."""

    peer_id: bytes
    seq: int
    policy: Mapping[str, Any]
    robot: str


class Swap:
    """An order that is being carried out. served, or error, once `is_done`."""

    def __init__(self, order: SwapOrder, load: Load, allow: Collection[str]) -> None:
        self.order = order
        self.served: ServedPolicy | None = None
        self.error = ""
        self.is_done = False
        self.took_s = 0.0
        self.idle = threading.Event()
        """Whether the policy that answers is not thinking."""
        self.idle.set()
        self._turn_until_s = 0.0
        self._load, self._allow = load, allow
        threading.Thread(target=self._run, name="swap", daemon=True).start()

    def _run(self) -> None:
        began_s, switch_s = time.monotonic(), sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        sys.setprofile(self._give_way)
        try:
            policy, details = self._load(self.order.policy)
            self.served = ServedPolicy.of(policy, details, self._allow)
            self.error = _warm_up(self.served)
        except Exception as error:  # somebody else's policy may raise anything; it is told who asked for it
            log.exception("a policy could not be loaded beside the one that answers")
            self.error = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        finally:
            sys.setprofile(None)
            sys.setswitchinterval(switch_s)
            self.took_s = time.monotonic() - began_s
            self.is_done = True

    def _give_way(self, frame: object, event: str, argument: object) -> None:
        if self.idle.is_set() or time.monotonic() < self._turn_until_s:
            return
        if not self.idle.wait(PAUSE_S):
            self._turn_until_s = time.monotonic() + TURN_S


def _warm_up(served: ServedPolicy) -> str:
    """One answer to nothing in particular, so that the first robot does not wait for what is made at first use; why
    there is none, empty if there is one."""
    spec, history = served.spec, len(served.spec.observation_offsets)
    lead = (history,) if history > 1 else ()
    arrays = {name: np.zeros((*lead, *feature.shape), feature.dtype) for name, feature in spec.inputs.items()}
    request = Request(WARM_UP, Observation(arrays, dict.fromkeys(arrays, 0), 0, "warm up"))
    [answer] = served.inference.answer([Ask(request, Session(WARM_UP, 0, "warm up"))])
    served.inference.end(WARM_UP)
    return answer.error and f"its first answer failed: {answer.error}"


def give_back_memory() -> None:
    """Have the C library return what a dropped policy had: each thread that loads has an arena, which it would keep."""
    if sys.platform == "linux":
        threading.Thread(target=lambda: ctypes.CDLL(None).malloc_trim(0), name="trim", daemon=True).start()


def check_room(config: PolicyConfig) -> None:
    """Raise SpecError if the policy's weights do not fit beside what runs; one without a folder of weights does."""
    folder = Path(str(getattr(config, "path", "")))
    needed = COPIES * sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    device = str(getattr(config, "device", "cpu"))
    free, where = _free_bytes(device)
    if free is not None and needed > free:
        raise SpecError(
            f"no room for a second policy: {folder} needs {needed / 1e9:.2f} GB while it is loaded, "
            f"{free / 1e9:.2f} GB are free {where}; end what else runs there, or serve it elsewhere"
        )


def _free_bytes(device: str) -> tuple[int | None, str]:
    """Of the graphics card, or of this machine or container; None where that cannot be told."""
    torch = sys.modules.get("torch")
    if torch is not None and (device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())):
        return torch.cuda.mem_get_info(None if device == "auto" else device)[0], "on the graphics card"
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None, ""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        return min(free, int(most) - int(used.read_text())), "in this container"
    return free, "on this machine"
