"""The process of a shadow policy: answers the observations that the policy node hands over, and compares the answers.

As a command, `python -m tactus.runtime.policy_node.shadow_process`, with its order as the first line of standard input;
it ends when that does. It speaks the wire's codec with the node (shadow.py) over one PAIR socket:

    WELCOME or REFUSE   to the node: the shadow's spec, or why there is none
    HELLO               from the node: the first policy's spec
    OBSERVE             from the node: an observation, and what the first policy answered
    BYE                 from the node: send the whole report

What it sends after its WELCOME is one frame: it is ready for the next one, and now and then the report so far, as JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import mmap
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import zmq

import tactus.policies.builtin
from tactus.hal.config import decode
from tactus.hal.spec import Feature, Observation, PolicySpec
from tactus.policies.policy import Policy, PolicyConfig, Prefix, Request, Session
from tactus.runtime.logs import log_to
from tactus.runtime.policy_node.inference import Ask, Held, Inference, make
from tactus.runtime.policy_node.shadow_report import Differences, line
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message

REGISTERED = (tactus.policies.builtin,)
log = logging.getLogger("tactus.shadow")

FIRST, PREFIX, NOISE = "shadow.first", "shadow.prefix", "shadow.noise"
"""Names of arrays beside an observation's own: the first policy's actions, prefix, and state of noise."""
REPORT_S = 1.0
TELL_S = 60.0
"""How often a line says how it goes."""
PR_SET_PDEATHSIG = 1


class _Once(logging.Filter):
    """Of what the shadow raises the first is told."""

    told = False

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.exc_info:
            return True
        record.msg, record.args = "it raised; the first policy goes on, and what else it raises is only counted", None
        first, self.told = not self.told, True
        return first


class Comparison:
    """Answers and compares. paused_ns: for how long the node has stopped this process so far."""

    def __init__(self, policy: Policy, first: PolicySpec, paused: mmap.mmap) -> None:
        self._policy = policy
        self._inference = Inference(policy)
        self._paused = paused
        self._skipped = 0
        self.differences = Differences(first, policy.spec)

    def take(self, message: Message) -> None:
        """An observation and the first policy's answer to it."""
        meta, arrays = message.meta, dict(message.arrays)
        self._skipped = meta["skipped"]
        for session in meta["ended"]:
            self._inference.end(session)
        opens = meta["opens"]
        reset = Session(message.session, opens["seed"], meta["task"]) if opens else None
        if opens:
            self.differences.of(Feature.from_dict(opens["robot"]))
        first, prefix, noise = (arrays.pop(name, None) for name in (FIRST, PREFIX, NOISE))
        assert first is not None
        seen = Observation(arrays, dict(zip(arrays, meta["stamps_ns"], strict=True)), message.tick, meta["task"])
        continued = None
        if self._policy.spec.takes_prefix and prefix is not None:
            continued = Prefix(prefix, meta["delay"])
        request = Request(message.session, seen, meta["ticks_left"], continued)
        held = None if meta["held"] is None else Held(*meta["held"])
        before_ns = time.monotonic_ns() - self._paused_ns
        [answer] = self._inference.answer([Ask(request, reset, b"" if noise is None else noise.tobytes(), held)])
        spent_ms = (time.monotonic_ns() - self._paused_ns - before_ns) / 1e6
        if answer.chunk is None:
            self.differences.errors += 1
        else:
            self.differences.add(first, answer.chunk.actions, spent_ms)

    def report(self) -> dict[str, Any]:
        return {**self.differences.report(), "skipped": self._skipped}

    @property
    def _paused_ns(self) -> int:
        return int.from_bytes(self._paused[:8], "little")


def main() -> None:
    """The process."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # they are for the node, which closes our input when it ends
    _die_with_parent()
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    log_to(sys.stderr, order["log_format"], "policy node: shadow: %(message)s")
    once = _Once()
    for logger in (log, logging.getLogger("tactus.inference")):
        logger.addFilter(once)
    with open(Path(order["folder"]) / "paused", "r+b") as file:
        paused = mmap.mmap(file.fileno(), 8)
    socket = zmq.Context.instance().socket(zmq.PAIR)
    socket.connect(f"ipc://{order['folder']}/socket")
    try:
        policy = make(decode(PolicyConfig, order["policy"]))
    except (ValueError, OSError) as error:
        codec.send(socket, codec.encode(Message(codec.REFUSE, meta={"reason": str(error)})))
        socket.close(1000)
        return
    _give_way()
    meta = {"policy": policy.spec.to_dict(), "remembers": policy.remembers}
    codec.send(socket, codec.encode(Message(codec.WELCOME, meta=meta)))
    _serve(socket, policy, paused)
    socket.close(1000)


def _serve(socket: zmq.Socket[bytes], policy: Policy, paused: mmap.mmap) -> None:
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    comparison: Comparison | None = None
    reported_s = told_s = time.monotonic()
    while sys.stdin.fileno() not in (ready := dict(poller.poll())) or socket in ready:
        message = codec.decode(codec.receive(socket))
        if message.kind == codec.HELLO:
            comparison = Comparison(policy, PolicySpec.from_dict(message.meta["policy"]), paused)
        assert comparison is not None
        if message.kind == codec.OBSERVE:
            try:
                comparison.take(message)
            except Exception:  # somebody else's policy may raise in all of its methods
                log.exception("the policy raised")
                comparison.differences.errors += 1
        now_s, report = time.monotonic(), None
        if message.kind == codec.BYE or (message.kind == codec.OBSERVE and now_s - reported_s >= REPORT_S):
            reported_s, report = now_s, comparison.report()
        socket.send(b"" if report is None else json.dumps(report).encode())
        if report is not None and now_s - told_s >= TELL_S:
            told_s = now_s
            log.info("%s", line(report))
        if message.kind == codec.BYE:
            return


def _give_way() -> None:
    """Every thread of this process, and those to come, run where nobody else wants to: the first policy's threads take
    a core from them at once."""
    threads = [int(each.name) for each in Path("/proc/self/task").glob("*")] or [0]
    for thread in threads:
        os.setpriority(os.PRIO_PROCESS, thread, 19)
        if hasattr(os, "SCHED_IDLE"):
            with contextlib.suppress(PermissionError):  # where a sandbox forbids it, being nice is what there is
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _die_with_parent() -> None:
    """A node that is killed while its shadow is stopped leaves nobody to wake it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
