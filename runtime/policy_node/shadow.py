"""A shadow policy: answers the same observations as the policy that drives, acts on nothing, and is compared with it.

It may not delay an answer of the first policy, so it is a process of its own (shadow_process.py) that has only what
time the first one leaves:

    node      … | infer ········ | send | hand over | wait for the next observation ···· | infer ········ | send …
    shadow      | stopped         ················  | infer ···························· | stopped          · infer …

- It is stopped (SIGSTOP) while the first policy works, unless it is waiting anyway, so that neither cores nor caches
  are shared, and runs at the lowest priority otherwise.
- An observation is handed over after its answer was sent, and only to a shadow that is waiting for one: what it cannot
  keep up with is skipped and counted. The arrays are not copied by the answering thread.
- Its socket has a context, and so a thread, of its own.

It draws the noise that the first one drew for the same observation, whatever was skipped, so that the same checkpoint
gives the same actions to the bit.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zmq

from tactus.hal.config import encode
from tactus.hal.spec import Chunk, Feature, PolicySpec, SpecError
from tactus.policies.policy import PolicyConfig, Session
from tactus.runtime.policy_node.inference import Ask
from tactus.runtime.policy_node.shadow_process import FIRST, NOISE, PREFIX
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message
from tactus.runtime.wire.handshake import IMAGE_SIZE, differences

log = logging.getLogger("tactus.policy_node")

FINISH_S = 5.0
"""How long the end of a node may wait for the answer that its shadow is working on."""
LOOK_MS = 200


class Shown(NamedTuple):
    """What the shadow is shown of a robot's observation: what was asked and answered. robot: its action's feature."""

    ask: Ask
    chunk: Chunk | None
    robot: Feature


class Shadow:
    """A running shadow. Order of calls: `ready`; then for every pass `pause` and `resume`, from one thread; `close`.

    Raises SpecError if the process cannot be started.
    """

    def __init__(self, config: PolicyConfig, log_format: str = "text") -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tactus-shadow-"))
        (self._folder / "paused").write_bytes(bytes(8))
        with open(self._folder / "paused", "r+b") as file:
            self._paused = mmap.mmap(file.fileno(), 8)
        self._context = zmq.Context()  # with an I/O thread: the node's never waits behind a picture for the shadow
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(f"ipc://{self._folder}/socket")
        order = {"policy": encode(config), "folder": str(self._folder), "log_format": log_format}
        words = [sys.executable, "-m", "tactus.runtime.policy_node.shadow_process"]
        try:
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE)
        except OSError as error:
            raise SpecError(f"shadow: its process cannot be started: {error.strerror}") from error
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        self._gone = self._closed = self._loaded = False
        self._remembers = True
        self._waiting = False
        self._paused_ns = self._stopped_ns = 0
        self._looked_s = 0.0
        self._picked: tuple[int, bytes] | None = None
        self._unopened: dict[str, Session] = {}
        self._known: set[str] = set()
        self._ended: list[str] = []
        self._gaps: set[str] = set()
        self._turns: dict[str, int] = {}
        self._latest = b""
        self._nothing: dict[str, Any] = {"compared": 0, "errors": 0, "dimensions": []}
        self._handed = 0
        self.answers = 0

    def ready(self, first: PolicySpec, allow: Collection[str] = ()) -> PolicySpec:
        """Wait until it is loaded, and compare it with the first policy; its spec. Raises SpecError for what does not
        fit, or if it cannot be loaded."""
        while not self._socket.poll(LOOK_MS):
            if self._process.poll() is not None:
                raise SpecError(f"shadow: its process ended while it was loading, {_status(self._process.returncode)}")
        message = codec.decode(codec.receive(self._socket))
        shutil.rmtree(self._folder, ignore_errors=True)  # both sides have what they need of it
        if message.kind == codec.REFUSE:
            raise SpecError(f"shadow: {message.meta['reason']}")
        spec = PolicySpec.from_dict(message.meta["policy"])
        if reasons := mismatches(first, spec, allow):
            raise SpecError(f"shadow: {spec.name} cannot be compared with {first.name}: {'; '.join(reasons)}")
        self._loaded, self._remembers = True, message.meta["remembers"]
        self._nothing = {"first": first.name, "shadow": spec.name, "compared": 0, "errors": 0, "dimensions": []}
        codec.send(self._socket, codec.encode(Message(codec.HELLO, meta={"policy": first.to_dict()})))
        return spec

    def pause(self, asks: Sequence[Ask], noise: Callable[[str], bytes]) -> None:
        """The first policy begins to work. noise: where a session's noise stands in it."""
        if self._gone:
            return
        self._hear()
        self._picked = None
        if not self._waiting:
            os.kill(self._process.pid, signal.SIGSTOP)
            self._stopped_ns = time.monotonic_ns()
            return
        able = [i for i, ask in enumerate(asks) if not self._lacks(ask)]
        if able:  # whose turn is longest ago
            index = min(able, key=lambda i: self._turns.get(asks[i].request.session, 0))
            ask = asks[index]
            self._picked = index, b"" if ask.reset is not None else noise(ask.request.session)

    def _lacks(self, ask: Ask) -> bool:
        """Whether it has not seen all of an episode that it would have to remember."""
        return self._remembers and ask.reset is None and ask.request.session in self._gaps

    def resume(self, shown: Sequence[Shown]) -> None:
        """The answers are sent: the first policy's work is done until the next call of `pause`."""
        picked, noise = self._picked or (-1, b"")
        if (now_s := time.monotonic()) - self._looked_s > LOOK_MS / 1000:
            self._looked_s = now_s
            self._look()
        for index, (ask, chunk, robot) in enumerate(shown):
            if chunk is None:
                continue
            self.answers += 1
            session = ask.request.session
            if ask.reset is not None:
                self._unopened[session] = ask.reset
                self._gaps.discard(session)
            if self._gone or index != picked or not self._hand_over(ask, chunk, robot, noise):
                self._gaps.add(session)
        if self._stopped_ns and not self._gone:
            self._paused_ns += time.monotonic_ns() - self._stopped_ns
            self._paused[:8] = self._paused_ns.to_bytes(8, "little")
            self._stopped_ns = 0
            os.kill(self._process.pid, signal.SIGCONT)

    def end(self, session: str) -> None:
        """A robot has gone."""
        self._unopened.pop(session, None)
        self._turns.pop(session, None)
        self._gaps.discard(session)
        if session in self._known:
            self._known.discard(session)
            self._ended.append(session)

    def _hand_over(self, ask: Ask, chunk: Chunk, robot: Feature, noise: bytes) -> bool:
        request, session = ask.request, ask.request.session
        seen, prefix, reset = request.observation, request.prefix, self._unopened.get(session)
        arrays = {**seen.arrays, FIRST: chunk.actions}
        if prefix is not None:
            arrays[PREFIX] = prefix.actions
        if noise:
            arrays[NOISE] = np.frombuffer(noise, np.uint8)
        self._handed += 1
        meta = {
            "task": seen.task,
            "stamps_ns": [*seen.stamps_ns.values()],
            "ticks_left": request.ticks_left,
            "delay": 0 if prefix is None else prefix.delay,
            "held": ask.held,
            "opens": None if reset is None else {"seed": reset.seed, "robot": robot.to_dict()},
            "ended": self._ended,
            "skipped": self.answers - self._handed,
        }
        message = Message(codec.OBSERVE, session, self._handed, seen.tick, arrays, meta)
        try:
            codec.send(self._socket, codec.encode(message), codec.NOBLOCK)
        except zmq.Again:
            self._handed -= 1
            return False
        self._waiting, self._ended = False, []
        self._unopened.pop(session, None)
        self._known.add(session)
        self._turns[session] = self._handed
        return True

    def _hear(self) -> None:
        """Take in what the shadow has said."""
        while codec.arrived(self._socket):
            self._waiting = True
            self._latest = self._socket.recv() or self._latest

    def _look(self) -> None:
        """Whether it lives."""
        if not self._gone and self._process.poll() not in (None, *(0,) * self._closed):
            self._gone = True
            log.warning("the shadow has ended, %s; the first policy goes on alone", _status(self._process.returncode))

    def report(self) -> dict[str, Any]:
        """What is known by now; from any thread. skipped: answers of the first policy that were not compared."""
        found = json.loads(self._latest) if self._latest else self._nothing
        return {**found, "skipped": max(0, self.answers - found["compared"] - found["errors"])}

    def close(self) -> dict[str, Any]:
        """End it, and give the whole report. May be called more than once."""
        if self._closed:
            return self.report()
        self._closed = True
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)
        if self._loaded:
            self._finish()
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._socket.close(0)
        self._context.term()
        shutil.rmtree(self._folder, ignore_errors=True)
        return self.report()

    def _finish(self) -> None:
        give_up_s = time.monotonic() + FINISH_S
        self._hear()
        try:
            codec.send(self._socket, codec.encode(Message(codec.BYE)), codec.NOBLOCK)
        except zmq.Again:  # it has not come so far as to read
            return
        while self._process.poll() is None and time.monotonic() < give_up_s:
            self._socket.poll(LOOK_MS)
            self._hear()
        self._hear()
        self._look()


def mismatches(first: PolicySpec, shadow: PolicySpec, allow: Collection[str] = ()) -> list[str]:
    """Why a shadow cannot be given what the first policy is given, or be compared with it; horizons may differ."""
    ours, theirs = {*first.inputs}, {*shadow.inputs}
    sides = ("first policy", "shadow")
    found = [f"the shadow reads {name}, the first policy does not" for name in sorted(theirs - ours)]
    found += [f"the first policy reads {name}, the shadow does not" for name in sorted(ours - theirs)]
    if found:
        found.append("names are given by --shadow.rename, cameras that are not there by --shadow.empty_cameras")
    for name in sorted(ours & theirs):
        found += differences(name, first.inputs[name], shadow.inputs[name], sides, shadow.casts, IMAGE_SIZE in allow)
    if first.observation_offsets != shadow.observation_offsets:
        found.append(
            f"history: first policy {len(first.observation_offsets)} observations, shadow "
            f"{len(shadow.observation_offsets)}"
        )
    return found + differences("action", first.action, shadow.action, sides)


def _status(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
