"""Robots, a bad network, and a policy node that is killed again and again: what must hold, and whether it did.

    python tests/bench/chaos.py [--minutes=3] [--seed=0] [--keep=FOLDER]

One `tactus serve` process is SIGKILLed every 20 s and started again at once. Four `tactus run` processes drive
synthetic robots at 30 Hz through a proxy that drops 5 % of the messages each way and stands still for 200 ms about
every 5 s. One more peer greets the node properly and then sends it observations as fast as it can. The long form is
--minutes=30.

What must hold: no robot node exits before its episodes are over, and then with status 0; every episode is written down
once and in order; a stretch of starved ticks ends within request_timeout_s + the longest restart + SLACK_S, and so does
the wait for an episode's first chunk; each robot executes the plan's actions in order, each once (the policy's action
for tick t is t); no action is outside the robot's limits. Exits with status 1 if something does not.
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
from typing import Any

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


class Node:
    """A `tactus serve` process at one address, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._log = folder / "node.log"
        self.restarts_s: list[float] = []
        self.process = self._start()
        endpoint_of(self._log)

    def _start(self) -> subprocess.Popen[bytes]:
        return start("serve", [f"--connect={self.endpoint}", *seeds.TICKER], self._log)

    def restart(self) -> None:
        """SIGKILL, and wait until the next one answers a HELLO."""
        began_s = time.monotonic()
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
            if time.monotonic() - began_s > 60:
                raise TimeoutError("the policy node did not come back")
            if probe.poll(0, zmq.POLLOUT):
                probe.send_multipart(seeds.hello("probe", real_time=False))
        self.restarts_s.append(time.monotonic() - began_s)
        probe.close()


@dataclass(frozen=True)
class Seen:
    """What one robot's run left behind. gap_s, gate_s: the longest stretch of starved ticks, and the longest wait for
    an episode's first chunk. wrong: actions that are not the plan's next; outside: beyond the limits."""

    status: int | None
    rows: list[dict[str, Any]]
    gap_s: float
    gate_s: float
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
    gap_s, gate_s, wrong, outside = 0.0, 0.0, 0, 0
    for row in rows:
        starved = row["timeline"]["starved"]
        gap_s = max([gap_s, *(length / FPS for length in _stretches(starved))])
        timing = timings[row["episode"]]
        gate_s = max(gate_s, timing["wall_s"] - timing["control_s"] - timing["spent_s"]["reset"])
        with np.load(folder / "actions" / f"episode_{row['episode']:05d}.npz") as data:
            actions = data["actions"]
        outside += int((~(np.abs(actions) <= LIMIT)).any(axis=1).sum())
        decided = np.delete(actions, starved, axis=0)[:, 0]
        wrong += int((decided != np.arange(len(decided))).sum())
    return Seen(status, rows, gap_s, gate_s, wrong, outside)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _stretches(ticks: list[int]) -> list[int]:
    """Lengths of runs of consecutive ticks."""
    runs = itertools.groupby(enumerate(ticks), lambda pair: pair[1] - pair[0])
    return [len(list(run)) for _, run in runs]


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
    longest_s = max(node.restarts_s, default=0.0)
    allowed_s = REQUEST_TIMEOUT_S + longest_s + SLACK_S

    minutes_taken = (time.monotonic() - began_s) / 60
    print(
        f"{minutes_taken:.1f} minutes, {len(node.restarts_s)} kills; "
        f"restart p50 {statistics.median(node.restarts_s or [0]):.2f} s, longest {longest_s:.2f} s; "
        f"a gap may take {allowed_s:.2f} s"
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
        print(
            f"{index:5d}  {one.status!s:>6}  {len(one.rows):3d} of {count:3d}  {one.total('ticks'):6d}  "
            f"{one.total('starved_ticks'):7d}  {one.gap_s:9.2f} s  {one.gate_s:11.2f} s  {one.total('resends'):7d}  "
            f"{one.total('policy_errors'):6d}  {one.wrong:5d}  {one.outside:7d}"
        )

    for index, one in enumerate(seen):
        numbers = [row["episode"] for row in one.rows]
        held = {
            f"ended with status {one.status}": one.status == 0,
            f"episodes {numbers} are not 0 to {count - 1}, each once": numbers == list(range(count)),
            f"a gap of {one.gap_s:.2f} s; allowed {allowed_s:.2f} s": one.gap_s <= allowed_s,
            f"waited {one.gate_s:.2f} s for a first chunk; allowed {allowed_s:.2f} s": one.gate_s <= allowed_s,
            f"{one.wrong} actions of another tick than was their turn": not one.wrong,
            f"{one.outside} actions outside the limits": not one.outside,
        }
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
