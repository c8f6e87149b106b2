"""What a peer that never finishes, never reads or sends too much costs a ROUTER in memory, and what bounds it.

    python tests/bench/unfinished.py [--limit_mb=300]

Each line is a ROUTER in a process of its own with the policy node's options, and a peer that speaks ZeroMQ by hand,
since libzmq itself sends no part of a message before it has the whole. It stops at --limit_mb or after some seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import zmq

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import zmtp

HWM, MAX_BYTES, SECONDS = 64, 1024 * 1024, 6.0
CASES = {
    # what the peer sends: bytes a frame, whether more frames follow for ever, whether the ROUTER is being read
    "one message without end, of 1 MB frames": (MAX_BYTES, True, True),
    "one message without end, of 64 byte frames": (64, True, True),
    "one message without end, of empty frames": (0, True, True),
    "one frame over MAXMSGSIZE": (MAX_BYTES + 1, False, True),
    "whole messages of 100 kB to a node that is busy": (100_000, False, False),
}


def route(reads: bool, ready: Connection) -> None:
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
    socket.setsockopt(zmq.RCVHWM, HWM)
    ready.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    while True:
        if not reads:
            time.sleep(1)
        elif socket.poll(100):
            socket.recv()


def flood(size: int, endless: bool, reads: bool, limit_mb: float) -> tuple[float, float, float, str]:
    """MB sent, growth of the ROUTER's RSS in MB, the same a second after hanging up, and how it ended."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    router = context.Process(target=route, args=(reads, there), daemon=True)
    router.start()
    try:
        peer = zmtp.join(here.recv(), b"peer")
        process = psutil.Process(router.pid)
        before_mb = process.memory_info().rss / 1e6
        frame = zmtp.frame(bytes(size), zmtp.MORE if endless else 0)
        frames = frame * max(1, 65536 // len(frame))
        sent, ended, give_up_s = 0, "still taken in", time.monotonic() + SECONDS
        while time.monotonic() < give_up_s:
            try:
                peer.sendall(frames)
            except TimeoutError:
                ended = "the peer has to wait"
                break
            except OSError:
                ended = "the connection is closed"
                break
            sent += len(frames)
            if process.memory_info().rss / 1e6 - before_mb > limit_mb:
                ended = f"stopped here at {limit_mb:.0f} MB"
                break
        time.sleep(0.3)
        grown_mb = process.memory_info().rss / 1e6 - before_mb
        peer.close()
        time.sleep(1)
        return sent / 1e6, grown_mb, process.memory_info().rss / 1e6 - before_mb, ended
    finally:
        router.kill()
        router.join()


def unread(size: int, count: int = 5000) -> tuple[float, float]:
    """MB that `count` answers cost which the peer never reads, and the slowest send in ms."""
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.setsockopt(zmq.SNDHWM, HWM)
    socket.setsockopt(zmq.LINGER, 0)
    peer = zmtp.join(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}", b"peer")
    before, slowest_s = psutil.Process().memory_info().rss, 0.0
    for _ in range(count):
        began_s = time.perf_counter()
        socket.send_multipart([b"peer", bytes(size)])
        slowest_s = max(slowest_s, time.perf_counter() - began_s)
    grown = psutil.Process().memory_info().rss - before
    peer.close()
    socket.close()
    return grown / 1e6, slowest_s * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit_mb", type=float, default=300.0)
    options = parser.parse_args()
    print(f"libzmq {zmq.zmq_version()}, RCVHWM and SNDHWM {HWM}, MAXMSGSIZE {MAX_BYTES} bytes")
    for name, case in CASES.items():
        sent_mb, grown_mb, left_mb, ended = flood(*case, options.limit_mb)
        print(f"{name}: {sent_mb:.0f} MB sent, RSS +{grown_mb:.0f} MB, a second later +{left_mb:.0f} MB; {ended}")
    for size in (1400, 100_000):
        grown_mb, slowest_ms = unread(size)
        answers = f"5000 answers of {size} bytes to a peer that never reads"
        print(f"{answers}: RSS +{grown_mb:.1f} MB, slowest {slowest_ms:.1f} ms")


if __name__ == "__main__":
    main()
