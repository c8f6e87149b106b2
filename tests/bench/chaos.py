"""Robots, a bad network, and a policy node that is killed again and again: what must hold, and whether it did.

    python tests/bench/chaos.py [--minutes=3] [--seed=0] [--keep=FOLDER]

One `tactus serve` process is SIGKILLed every 20 s and started again at once. Four `tactus run` processes drive
synthetic robots at 30 Hz through a proxy that drops 5 % of the messages each way and stands still for 200 ms about
every 5 s. One more peer greets the node properly and then sends it observations as fast as it can. The long form is
--minutes=30.

What must hold: no robot node exits before its episodes are over, and then with status 0; every episode is written down
once and in order; a stretch of starved ticks ends within request_timeout_s + SLACK_S, and the time that a restart took
if there was one, and so does the wait for an episode's first chunk; each robot executes the plan's actions in order,
each once (the policy's action for tick t is t); no action is outside the robot's limits. Exits with status 1 if
something does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zmq

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos.flooder import Flooder
from chaos.lane import Faults
from chaos.proxy import RunningProxy
from fuzz import seeds
from processes import end, endpoint_of, episodes, start

FPS, STEPS, ROBOTS = 30, 600, 4
KILL_EVERY_S = 20.0
NETWORK = Faults(drop=0.05, stall_every_s=5.0, stall_ms=200.0)
REQUEST_TIMEOUT_S = 1.0
SLACK_S = 0.5
"""What a gap may take beyond that: two stalls of the network and some ticks."""
LIMIT = float(STEPS + seeds.HORIZON)


class Span(NamedTuple):
    """From when to when, in seconds of wall time: the robots are other processes, and files have no other clock."""

    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.begin_s


class Node:
    """A `tactus serve` process at one address, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._log = folder / "node.log"
        self.outages: list[Span] = []
        self.process = self._start()
        endpoint_of(self._log)

    def _start(self) -> subprocess.Popen[bytes]:
        return start("serve", [f"--connect={self.endpoint}", *seeds.TICKER], self._log)

    def restart(self) -> None:
        """SIGKILL, and wait until the next one answers a HELLO."""
        began_s = time.time()
        self.process.kill()
        self.process.wait()
        self.process = self._start()
        probe = zmq.Context.instance().socket(zmq.DEALER)
        probe.setsockopt(zmq.LINGER, 0)
        probe.setsockopt(zmq.ROUTING_ID, b"probe")
        probe.setsockopt(zmq.IMMEDIATE, 1)
        probe.setsockopt(zmq.RECONNECT_IVL, 10)
        probe.connect(self.endpoint)
        while not probe.poll(20):
            if time.time() - began_s > 60:
                raise TimeoutError("the policy node did not come back")
            if probe.poll(0, zmq.POLLOUT):
                probe.send_multipart(seeds.hello("probe", real_time=False))
        self.outages.append(Span(began_s, time.time()))
        probe.close()


@dataclass(frozen=True)
class Seen:
    """What one robot's run left behind. gaps: stretches of starved ticks; gates: waits for an episode's first chunk.
    wrong: actions that are not the plan's next; outside: beyond the limits."""

    status: int | None
    rows: list[dict[str, Any]]
    gaps: list[Span]
    gates: list[Span]
    wrong: int
    outside: int

    def total(self, key: str) -> int:
        return sum(row[key] for row in self.rows)


def robot(folder: Path, endpoint: str, count: int) -> subprocess.Popen[bytes]:
    words = {
        "robot.type": "synthetic",
        "robot.width": seeds.WIDTH,
        "robot.fps": FPS,
        "robot.steps": STEPS,
        "robot.limit": LIMIT,
        "episodes": count,
        "connect": endpoint,
        "request_timeout_s": REQUEST_TIMEOUT_S,
        "record_actions": "true",
        "output_dir": folder,
    }
    return start("run", [f"--{key}={value}" for key, value in words.items()], folder.with_suffix(".log"))


def look(folder: Path, status: int | None) -> Seen:
    rows = episodes(folder)
    timings = {row["episode"]: row for row in _lines(folder / "timings.jsonl")}
    gaps: list[Span] = []
    gates: list[Span] = []
    wrong = outside = 0
    for row in rows:
        timing, starved = timings[row["episode"]], row["timeline"]["starved"]
        file = folder / "actions" / f"episode_{row['episode']:05d}.npz"
        begin_s = file.stat().st_mtime - timing["control_s"]  # written as soon as the episode is over
        gaps += [Span(begin_s + tick / FPS, begin_s + (tick + length) / FPS) for tick, length in _stretches(starved)]
        gate_s = timing["wall_s"] - timing["control_s"] - timing["spent_s"]["reset"]
        gates.append(Span(begin_s - gate_s, begin_s))
        with np.load(file) as data:
            actions = data["actions"]
        outside += int((~(np.abs(actions) <= LIMIT)).any(axis=1).sum())
        decided = np.delete(actions, starved, axis=0)[:, 0]
        wrong += int((decided != np.arange(len(decided))).sum())
    return Seen(status, rows, gaps, gates, wrong, outside)


def allowed_s(span: Span, outages: list[Span]) -> float:
    """How long a gap may take: the request's timeout, and the restart if it is one's."""
    extra_s = REQUEST_TIMEOUT_S + SLACK_S
    met = [one for one in outages if one.begin_s < span.end_s and span.begin_s < one.end_s + extra_s]
    return extra_s + max((one.length_s for one in met), default=0.0)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _stretches(ticks: list[int]) -> list[tuple[int, int]]:
    """First tick and length of each run of consecutive ticks."""
    runs = [list(run) for _, run in itertools.groupby(enumerate(ticks), lambda pair: pair[1] - pair[0])]
    return [(run[0][1], len(run)) for run in runs]


def _longest_s(spans: list[Span]) -> float:
    return max((span.length_s for span in spans), default=0.0)


def kill_regularly(node: Node, done: threading.Event, faults: list[str]) -> None:
    while not done.wait(KILL_EVERY_S):
        if node.process.poll() is not None:
            faults.append(f"the policy node ended by itself with status {node.process.returncode}")
        try:
            node.restart()
        except TimeoutError as error:
            faults.append(str(error))
            return


def run(minutes: float, seed: int, folder: Path) -> list[str]:
    count = max(1, math.ceil(minutes * 60 * FPS / STEPS))
    names = [folder / f"robot_{index}" for index in range(ROBOTS)]
    faults: list[str] = []
    node = Node(folder)
    began_s = time.monotonic()
    done = threading.Event()
    try:
        with RunningProxy(node.endpoint, NETWORK, NETWORK, seed) as proxy, Flooder(node.endpoint) as flooder:
            robots = [robot(name, proxy.endpoint, count) for name in names]
            killer = threading.Thread(target=kill_regularly, args=(node, done, faults))
            killer.start()
            give_up_s = began_s + minutes * 60 * 2 + 60
            while any(one.poll() is None for one in robots) and time.monotonic() < give_up_s:
                time.sleep(0.2)
            statuses = [one.poll() for one in robots]
            done.set()
            killer.join()
            for one in robots:
                end(one)
            totals = proxy.ask()
        flood = flooder.flood
    finally:
        done.set()
        node.process.kill()
        node.process.wait()
    seen = [look(name, status) for name, status in zip(names, statuses, strict=True)]
    restarts_s = [outage.length_s for outage in node.outages] or [0.0]
    minutes_taken = (time.monotonic() - began_s) / 60
    print(
        f"{minutes_taken:.1f} minutes, {len(node.outages)} kills; "
        f"restart p50 {statistics.median(restarts_s):.2f} s, longest {max(restarts_s):.2f} s; "
        f"a gap may take {REQUEST_TIMEOUT_S + SLACK_S:.2f} s, and the restart's time"
    )
    for way, tally in (("to the node", totals.up), ("to the robots", totals.down)):
        share = tally.dropped / max(1, tally.seen)
        print(
            f"network {way}: {tally.seen} messages, {tally.dropped} dropped ({share:.1%}), {tally.duplicated} doubled, "
            f"{tally.stalls} stalls, {tally.stalled} messages stalled"
        )
    print(f"network: {totals.lost} messages for a node that was not there; {totals.robots} sessions")
    print(
        f"flooder: {flood.sent} observations, {flood.sent / max(flood.seconds, 1e-9):,.0f} a second; "
        f"{flood.chunks} chunks for them"
    )
    print("robot  status  episodes   ticks  starved  longest gap  longest start  resends  errors  wrong  outside")
    for index, one in enumerate(seen):
        ticks, starved, resends, errors = map(one.total, ("ticks", "starved_ticks", "resends", "policy_errors"))
        print(
            f"{index:5d}  {one.status!s:>6}  {len(one.rows):3d} of {count:3d}  {ticks:6d}  {starved:7d}  "
            f"{_longest_s(one.gaps):9.2f} s  {_longest_s(one.gates):11.2f} s  {resends:7d}  {errors:6d}  "
            f"{one.wrong:5d}  {one.outside:7d}"
        )

    for index, one in enumerate(seen):
        numbers = [row["episode"] for row in one.rows]
        held = {
            f"ended with status {one.status}": one.status == 0,
            f"episodes {numbers} are not 0 to {count - 1}, each once": numbers == list(range(count)),
            f"{one.wrong} actions of another tick than was their turn": not one.wrong,
            f"{one.outside} actions outside the limits": not one.outside,
        }
        for name, spans in (("a gap", one.gaps), ("a start", one.gates)):
            long = [span for span in spans if span.length_s > allowed_s(span, node.outages)]
            held |= {f"{name} of {s.length_s:.2f} s; allowed {allowed_s(s, node.outages):.2f} s": False for s in long}
        faults += [f"robot {index}: {fault}" for fault, fine in held.items() if not fine]
        text = names[index].with_suffix(".log").read_text()
        faults += [f"robot {index}: a traceback in its log"] * ("Traceback" in text)
    faults += ["the network dropped nothing"] * (not totals.up.dropped or not totals.down.dropped)
    faults += ["the flooder was not heard"] * (flood.sent < 1000)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder, new, for logs and results; not given: thrown away")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        faults = run(options.minutes, options.seed, folder)
    for fault in faults:
        print(f"DOES NOT HOLD: {fault}")
    print("everything holds" if not faults else f"{len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
