"""Mutated messages against the decoder, against a live policy node that serves a robot meanwhile, and against a robot.

    python tests/bench/fuzz.py [--decoder=1000000] [--live=100000] [--link=100000] [--seed=0]

- decoder: tactus.runtime.wire.codec.decode in processes of their own; only WireError may come out of it
- live: a `tactus serve` process; a crowd of strangers and half-known robots sends it mutated messages and bytes that
  are no ZeroMQ at all, a `tactus run` process drives a synthetic robot at 30 Hz with it, and somebody pings it
- link: a policy node that answers a robot's requests with mutated messages; only replies and LinkErrors may come out
Same seed, same messages. Exits with status 1 if something does not hold; a message that surprised is written to
--keep=FOLDER, from where it belongs into tests/corpus/.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import zmq

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import seeds
from fuzz.crowd import Crowd
from fuzz.host import attack
from fuzz.mutator import Mutator
from processes import end, episodes, serving, start

from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import WireError

MAX_GROWTH_MB = 50.0
MAX_PING_S = 1.0
HANG_S = 1.0
FPS, STEPS = 30, 150


def rss_mb(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


def decode_many(count: int, seed: int, results: Connection) -> None:
    """In a process of its own: what `count` messages made of the decoder."""
    me = psutil.Process()
    mutator = Mutator(seed, seeds.to_node("robot") + seeds.to_robot("robot"))
    for _ in range(2000):  # caches fill, allocators settle
        _decoded(mutator.message())
    before_mb, kinds, slowest_s, spent_s, surprises = rss_mb(me), collections.Counter(), 0.0, 0.0, []
    for _ in range(count):
        frames = mutator.message()
        began_s = time.perf_counter()
        kind = _decoded(frames)
        took_s = time.perf_counter() - began_s
        kinds[kind] += 1
        spent_s += took_s
        slowest_s = max(slowest_s, took_s)
        if (kind.startswith("!") or took_s > HANG_S) and len(surprises) < 20:
            surprises.append((kind, [frame.hex() for frame in frames]))
    results.send((kinds, slowest_s, spent_s, rss_mb(me) - before_mb, surprises))


def _decoded(frames: list[bytes]) -> str:
    try:
        codec.decode(frames)
    except WireError as error:
        return error.code
    except BaseException as error:
        return f"!{type(error).__name__}: {error}"[:80]
    return "decoded"


def decoder(count: int, seed: int, keep: Path) -> list[str]:
    context = multiprocessing.get_context("spawn")
    workers = []
    began_s = time.monotonic()
    processes = min(2, os.cpu_count() or 1)
    for index in range(processes):
        here, there = context.Pipe()
        process = context.Process(target=decode_many, args=(count // processes, seed + index, there), daemon=True)
        process.start()
        there.close()
        workers.append((process, here))
    kinds, slowest_s, spent_s, growth_mb, surprises = collections.Counter(), 0.0, 0.0, 0.0, []
    for process, here in workers:
        try:
            found, slowest, spent, growth, surprising = here.recv()
        except EOFError:
            process.join()
            return [f"decoder: a process ended with status {process.exitcode}"]
        kinds += found
        slowest_s, spent_s, growth_mb = max(slowest_s, slowest), spent_s + spent, max(growth_mb, growth)
        surprises += surprising
        process.join()
    total = kinds.total()
    print(f"decoder: {total} messages in {time.monotonic() - began_s:.0f} s, {processes} processes")
    print(f"  decode alone {total / spent_s:,.0f} messages/s a core, slowest {slowest_s * 1000:.1f} ms")
    print(f"  RSS growth {growth_mb:.1f} MB")
    print("  " + ", ".join(f"{kind} {number}" for kind, number in kinds.most_common()))
    _keep(keep, "decoder", surprises)
    faults = [f"decoder: {kind}" for kind, _ in surprises]
    return faults + ([f"decoder: RSS grew by {growth_mb:.1f} MB"] if growth_mb > MAX_GROWTH_MB else [])


class Pinger(threading.Thread):
    """A robot that only asks for signs of life; slowest_s: the longest that one took, silent: those that never came."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self._done = threading.Event()
        self.asked, self.slowest_s, self.silent = 0, 0.0, 0

    def run(self) -> None:
        dealer = zmq.Context.instance().socket(zmq.DEALER)
        dealer.setsockopt(zmq.ROUTING_ID, b"pinger")
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(self._endpoint)
        dealer.send_multipart(seeds.hello("pinger", real_time=False))
        dealer.poll(5000) and dealer.recv_multipart()
        while not self._done.wait(0.1):
            began_s = time.monotonic()
            self.asked += 1
            dealer.send_multipart(seeds.ping("pinger", sent_ns=self.asked))
            if dealer.poll(5000):
                dealer.recv_multipart()
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            else:
                self.silent += 1
        dealer.close()

    def finish(self) -> None:
        self._done.set()
        self.join()


def attack_node(endpoint: str, count: int, seed: int, results: Connection) -> None:
    """In a process of its own, so that the crowd does not take its turns with who watches."""
    crowd = Crowd(endpoint, seed)
    for _ in range(count // 100):
        crowd.send(100)
    crowd.close()
    results.send(crowd.sent)


def live(count: int, seed: int, folder: Path) -> list[str]:
    log, out = folder / "node.log", folder / "robot"
    context = multiprocessing.get_context("spawn")
    with serving(log, *seeds.TICKER) as (process, endpoint):
        robot = start(
            "run",
            [
                "--robot.type=synthetic",
                f"--robot.width={seeds.WIDTH}",
                f"--robot.fps={FPS}",
                f"--robot.steps={STEPS}",
                "--episodes=100000",
                f"--connect={endpoint}",
                f"--output_dir={out}",
            ],
            folder / "robot.log",
        )
        try:
            _wait_for_episodes(out, 1, robot)
            pinger = Pinger(endpoint)
            pinger.start()
            node = psutil.Process(process.pid)
            warm = Crowd(endpoint, seed + 1)
            warm.send(2000)
            warm.close()
            before_mb, before_fds = rss_mb(node), node.num_fds()
            began_s = time.monotonic()
            here, there = context.Pipe()
            attacker = context.Process(target=attack_node, args=(endpoint, count, seed, there), daemon=True)
            attacker.start()
            there.close()
            peak_mb = before_mb
            while attacker.is_alive() and process.poll() is None and not here.poll(0.2):
                peak_mb = max(peak_mb, rss_mb(node))
            took_s = time.monotonic() - began_s
            sent = here.recv() if here.poll(0) else None
            attacker.kill()
            attacker.join()
            crashed = process.poll() is not None
            pinger.finish()
            if not crashed:
                time.sleep(1)
                growth_mb, fds = rss_mb(node) - before_mb, node.num_fds()
                _wait_for_episodes(out, len(episodes(out)) + 1, robot)
        finally:
            end(robot, by=signal.SIGINT)
    if crashed or sent is None:
        return [f"live: the node ended with status {process.returncode} after {took_s:.0f} s", *_traces(log)[:5]]
    rows = episodes(out)
    starved = sum(row["starved_ticks"] for row in rows)
    ticks = sum(row["ticks"] for row in rows)
    errors = sum(row["policy_errors"] for row in rows)
    traces = _traces(log)
    print(f"live: {sent.messages} mutated messages in {took_s:.0f} s ({sent.messages / took_s:,.0f} a second)")
    print(f"  from {sent.peers} peers, {sent.answers} answers read; {sent.garbage} connections with no ZeroMQ on them")
    print(f"  node: RSS {before_mb:.1f} MB before, {growth_mb:+.1f} MB after, peak {peak_mb - before_mb:+.1f} MB")
    print(f"  node: {before_fds} file descriptors before, {fds} after; {len(traces)} tracebacks in its log")
    print(f"  node: {pinger.asked} pings, slowest answer {pinger.slowest_s * 1000:.0f} ms, {pinger.silent} unanswered")
    print(f"  good robot: {len(rows)} episodes, {ticks} ticks at {FPS} Hz, {starved} starved, {errors} errors")
    held = {
        f"{sent.left} messages never left": not sent.left,
        f"node's RSS grew by {growth_mb:.1f} MB": growth_mb < MAX_GROWTH_MB,
        f"a ping took {pinger.slowest_s:.2f} s": pinger.slowest_s <= MAX_PING_S,
        f"{pinger.silent} pings unanswered": not pinger.silent,
        f"the good robot starved for {starved} ticks": not starved,
        f"the good robot saw {errors} errors": not errors,
        **{f"traceback: {trace}": False for trace in dict.fromkeys(traces)},
    }
    return [f"live: {fault}" for fault, fine in held.items() if not fine]


def _wait_for_episodes(out: Path, count: int, robot: object, timeout_s: float = 120) -> None:
    give_up_s = time.monotonic() + timeout_s
    while len(episodes(out)) < count and time.monotonic() < give_up_s and robot.poll() is None:  # type: ignore[attr-defined]
        time.sleep(0.05)


def _traces(log: Path) -> list[str]:
    """The last line of each traceback."""
    return re.findall(r"^Traceback .*?\n(?:[ ].*\n)+(\S.*)$", log.read_text(errors="replace"), re.MULTILINE)


def link(count: int, seed: int, keep: Path) -> list[str]:
    began_s = time.monotonic()
    me = psutil.Process()
    before_mb = rss_mb(me)
    outcome = attack(count, seed)
    print(f"link: {outcome.arrived} mutated answers in {time.monotonic() - began_s:.0f} s, {outcome.links} links")
    print("  " + ", ".join(f"{kind} {number}" for kind, number in outcome.kinds.most_common()))
    print(f"  RSS growth {rss_mb(me) - before_mb:.1f} MB")
    _keep(keep, "link", outcome.surprises)
    kinds = collections.Counter(kind for kind, _ in outcome.surprises)
    return [f"link: {kind} ({number} times)" for kind, number in kinds.most_common()]


def _keep(folder: Path, whom: str, surprises: list[tuple[str, list[str]]]) -> None:
    for index, (why, frames) in enumerate(surprises[:20]):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{whom}_{index}.json").write_text(json.dumps({"why": why, "messages": [frames]}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoder", type=int, default=1_000_000, help="messages against the decoder; 0: leave out")
    parser.add_argument("--live", type=int, default=100_000, help="messages against a live policy node; 0: leave out")
    parser.add_argument("--link", type=int, default=100_000, help="answers against a robot's link; 0: leave out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("outputs/fuzz"), help="where surprises are written")
    options = parser.parse_args()
    faults = decoder(options.decoder, options.seed, options.keep) if options.decoder else []
    with tempfile.TemporaryDirectory() as folder:
        if options.live:
            faults += live(options.live, options.seed, Path(folder))
    if options.link:
        faults += link(options.link, options.seed, options.keep)
    for fault in faults:
        print(f"DOES NOT HOLD: {fault}")
    print("everything holds" if not faults else f"{len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
