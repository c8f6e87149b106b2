"""Round trip with other people's policy servers and robots, beside theirs with each other.

    python tests/bench/peers.py [--rounds=200] [--sizes=256x256,480x640]

Two pictures and a state go out, a 50 x 7 chunk comes back; nobody thinks. Each server is a process of its own.
- openpi: openpi_client's WebsocketClientPolicy, and a server as openpi has it (asyncio, openpi_client's serializer)
- openpi_policy: our policy.type=openpi in the client's place
- openpi_bridge: their client, at our bridge, in front of our policy node
- gr00t: a REQ socket and a REP loop as GR00T N1.7 has them, with msgpack-numpy; written from its source
- gr00t_policy, gr00t_bridge: as for openpi
- tactus: our link and our node, as `tactus run` has them, pictures through shared memory
The contestants take turns in blocks; a ratio is the median over blocks of a block's median to openpi's, or GR00T's,
beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq

sys.path.append(str(Path(__file__).parents[1]))

from peer_servers import Gr00tServer, OpenpiServer, gr00t_bytes, gr00t_message
from wire import HORIZON, WIDTH, Trip, features, observation, serve_tactus, tactus_trip

from tactus.hal.spec import IMAGES, STATE, Feature
from tactus.policies.policy import Policy, Request
from tactus.policies.remote.config import Gr00tConfig, OpenpiConfig
from tactus.policies.scripted.ticker import TickerPolicy
from tactus.runtime.bridges.bridge_process import Bridge, Order

Size = tuple[int, int]
BLOCK = 20
CAMERAS = [f"{IMAGES}camera_{i}" for i in range(2)]
OPENPI = {"observation/image": CAMERAS[0], "observation/wrist_image": CAMERAS[1], "observation/state": STATE}
GR00T = {"video": {"front": CAMERAS[0], "wrist": CAMERAS[1]}, "state": {"arm": STATE}}
CHUNK = np.zeros((HORIZON, WIDTH), np.float32)


def serve_openpi(size: Size, ready: Connection) -> None:
    server = OpenpiServer(lambda seen: {"actions": CHUNK, "server_timing": {"infer_ms": 0.0}})
    ready.send(server.url)
    threading.Event().wait()


def serve_gr00t(size: Size, ready: Connection) -> None:
    server = Gr00tServer(lambda seen: {"arm": CHUNK[None]})
    ready.send(server.url)
    threading.Event().wait()


def openpi_trip(url: str, size: Size) -> Trip:
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    client, arrays = WebsocketClientPolicy(url), observation(size).arrays
    message = {key: arrays[name] for key, name in OPENPI.items()} | {"prompt": "pick up the cube"}

    def trip() -> None:
        assert client.infer(message)["actions"].shape == CHUNK.shape

    return trip


def gr00t_trip(url: str, size: Size) -> Trip:
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.connect(url)
    arrays = observation(size).arrays
    video = {"front": arrays[CAMERAS[0]][None, None], "wrist": arrays[CAMERAS[1]][None, None]}
    seen = {"video": video, "state": {"arm": arrays[STATE][None, None]}, "language": {"task": [["pick up the cube"]]}}
    request = {"endpoint": "get_action", "data": {"observation": seen, "options": None}}

    def trip() -> None:
        socket.send(gr00t_bytes(request, "n1.7"))
        assert gr00t_message(socket.recv(), "n1.7")[0]["arm"].shape == CHUNK[None].shape

    return trip


def policy_trip(policy: Policy, size: Size) -> Trip:
    asked = [Request("s", observation(size))]
    return lambda: policy.infer(asked).clear()


def openpi_policy(url: str, size: Size) -> Trip:
    inputs = {CAMERAS[0]: [*size], CAMERAS[1]: [*size], STATE: WIDTH}
    config = OpenpiConfig(url=url, inputs=inputs, features=OPENPI | {"prompt": "task"}, horizon=HORIZON)
    return policy_trip(config.make(), size)


def gr00t_policy(url: str, size: Size) -> Trip:
    inputs = {CAMERAS[0]: [*size], CAMERAS[1]: [*size], STATE: WIDTH}
    mapped = GR00T | {"language": {"task": "task"}}
    config = Gr00tConfig(url=url, inputs=inputs, features=mapped, actions={"arm": WIDTH}, horizon=HORIZON)
    return policy_trip(config.make(), size)


def bridge(endpoint: str, size: Size, kind: Any, mapped: dict[str, Any], made: list[Bridge]) -> str:
    """The address of a new bridge in front of the node."""
    spec = TickerPolicy(features(size), Feature((WIDTH,), "float32"), HORIZON).spec
    actions = {"arm": WIDTH} if kind == "gr00t" else {}
    order = {"host": "127.0.0.1", "port": 0, "node": endpoint, "policy": spec.to_dict()}
    made.append(Bridge(Order(kind=kind, features=mapped, actions=actions, **order)))
    return made[-1].endpoint


def race(size: Size, rounds: int) -> dict[str, list[float]]:
    """Per contestant, the median round trip in ms of each block; its first block warms it up and is not there."""
    context = multiprocessing.get_context("spawn")
    servers, bridges = [], []

    def started(serve: Callable[[Size, Connection], None]) -> str:
        here, there = context.Pipe()
        servers.append(context.Process(target=serve, args=(size, there), daemon=True))
        servers[-1].start()
        return here.recv()

    try:
        openpi, gr00t, node = (started(serve) for serve in (serve_openpi, serve_gr00t, serve_tactus))
        at = partial(bridge, node, size, made=bridges)
        trips = {
            "openpi": openpi_trip(openpi, size),
            "openpi_policy": openpi_policy(openpi, size),
            "openpi_bridge": openpi_trip(at("openpi", OPENPI | {"prompt": "task"}), size),
            "gr00t": gr00t_trip(gr00t, size),
            "gr00t_policy": gr00t_policy(gr00t, size),
            "gr00t_bridge": gr00t_trip(at("gr00t", GR00T | {"language": {"task": "task"}}), size),
            "tactus": tactus_trip(node, size, memory="shared"),
        }
        blocks: dict[str, list[float]] = {name: [] for name in trips}
        for block in range(rounds // BLOCK + 1):
            for name, trip in trips.items():
                spent = []
                for _ in range(BLOCK):
                    started_s = time.perf_counter()
                    trip()
                    spent.append((time.perf_counter() - started_s) * 1000)
                if block:
                    blocks[name].append(statistics.median(spent))
        return blocks
    finally:
        for each in bridges:
            each.close()
        for server in servers:
            server.terminate()
            server.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="round trips per contestant and size")
    parser.add_argument("--sizes", default="256x256,480x640", help="of the two pictures")
    options = parser.parse_args()
    for size in options.sizes.split(","):
        height, _, width = size.partition("x")
        blocks = race((int(height), int(width)), options.rounds)
        for name, medians in blocks.items():
            theirs = blocks["gr00t" if name.startswith("gr00t") else "openpi"]
            ratio = statistics.median(m / t for m, t in zip(medians, theirs, strict=True))
            print(f"{size}  {name:14} {statistics.median(medians):7.3f} ms  {ratio:.2f}x", flush=True)


if __name__ == "__main__":
    main()
