"""Round trip of an observation and its chunk: our link and policy node against bare pyzmq and LeRobot's gRPC.

    python tests/bench/wire.py [--rounds=400] [--starts=4]

Two images and a state go out, 50 x 7 float32 come back; each server is a process of its own on loopback TCP.
- bare: DEALER and ROUTER, multipart, zero copy, no thought: the limit for anything built on pyzmq
- tactus: Link and PolicyNode as `run` and `serve` use them, with a policy that thinks of nothing
- shared: the same with large arrays through shared memory, as with --wire.memory=shared (tactus and curve: off)
- jpeg: the same with pictures as JPEG, as with --wire.images=jpeg:90; of rendered pictures, the others' are noise
- curve: tactus over an encrypted link, as with --curve.key; curve_shared: with shared memory
- lerobot: LeRobot 0.6.1's own PolicyServer and transport (gRPC, pickle), its policy replaced by zeros
The contestants take turns in blocks of 25, so that whatever else the machine does hits all alike; a ratio is the
median over blocks of a block's median to the first contestant's beside it. All are started --starts times anew: how a
process gets its memory, and on which core it runs, is settled at its start and makes bare alone up to twice as quick.
The last lines time encode and decode alone; and what JPEG makes of two pictures of LIBERO's task libero_object 0, as
rendered (from $LIBERO_ASSETS, else primitive assets) and with a camera's noise of 4 grey levels: bytes, milliseconds to
pack and to unpack.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import zmq

from tactus.hal.spec import IMAGES, STATE, Feature, Observation, RobotSpec, image
from tactus.runtime.wire import codec, pictures
from tactus.runtime.wire.config import WireConfig
from tactus.runtime.wire.keys import AllowList, ClientKeys, ServerKeys, make_keys, read_secret

SIZES = {"0.39 MB": (256, 256), "1.84 MB": (480, 640), "6.14 MB": (800, 1280)}
HORIZON, WIDTH, BLOCK = 50, 7, 25

Trip = Callable[[], None]


def observation(size: tuple[int, int]) -> Observation:
    rng = np.random.default_rng(0)
    arrays = {f"{IMAGES}camera_{i}": rng.integers(0, 255, (*size, 3), np.uint8) for i in range(2)}
    return Observation({**arrays, STATE: np.zeros(WIDTH, np.float32)}, dict.fromkeys([*arrays, STATE], 0))


@functools.cache
def rendered(size: tuple[int, int], noise: float = 0.0) -> Observation:
    """LIBERO's two cameras at its first tick. noise: standard deviation, in grey levels."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    from tactus.hal.libero.config import LiberoConfig

    robot = LiberoConfig(suite="libero_object", tasks=[0], image_size=size).make()
    try:
        robot.reset(0, 0)
        seen = robot.observe().arrays
        pictures = [np.ascontiguousarray(seen[f"{IMAGES}{name}"]) for name in ("image", "image2")]
    finally:
        robot.close()
    rng = np.random.default_rng(0)
    noisy = [np.clip(p + rng.normal(0, noise, p.shape), 0, 255).astype(np.uint8) for p in pictures]
    arrays = {f"{IMAGES}camera_{i}": picture for i, picture in enumerate(noisy)}
    return Observation({**arrays, STATE: np.zeros(WIDTH, np.float32)}, dict.fromkeys([*arrays, STATE], 0))


def features(size: tuple[int, int]) -> dict[str, Feature]:
    return {f"{IMAGES}camera_{i}": image(*size) for i in range(2)} | {STATE: Feature((WIDTH,), "float32")}


def serve_bare(size: tuple[int, int], ready: Connection) -> None:
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    ready.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    chunk = np.zeros((HORIZON, WIDTH), np.float32)
    while True:
        identity, header, *_ = socket.recv_multipart(copy=False)
        socket.send_multipart([identity, header.bytes, chunk.data], copy=False)


def serve_tactus(size: tuple[int, int], ready: Connection, keys: ServerKeys | None = None) -> None:
    from tactus.policies.scripted.ticker import TickerPolicy
    from tactus.runtime.policy_node.node import PolicyNode

    policy = TickerPolicy(features(size), Feature((WIDTH,), "float32"), HORIZON)
    node = PolicyNode(policy, "tcp://127.0.0.1:*", keys=keys)
    ready.send(node.endpoint)
    node.run()


def serve_curve(size: tuple[int, int], ready: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        robots = Path(folder) / "robots"
        key = make_keys(robots, "robot")[1]
        own = make_keys(Path(folder), "policy")[1]
        ready.send((read_secret(key, ""), read_secret(own, "").public))
        key.unlink()
        serve_tactus(size, ready, ServerKeys(read_secret(own, ""), AllowList(robots)))


def serve_lerobot(size: tuple[int, int], ready: Connection) -> None:
    import logging
    from concurrent import futures

    import grpc
    import torch
    from lerobot.async_inference.configs import PolicyServerConfig
    from lerobot.async_inference.policy_server import PolicyServer
    from lerobot.transport import services_pb2_grpc

    class Echo(PolicyServer):
        def _predict_action_chunk(self, observation_t):
            return self._time_action_chunk(
                observation_t.get_timestamp(), list(torch.zeros(HORIZON, WIDTH)), observation_t.get_timestep()
            )

    torch.set_num_threads(1)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    echo = Echo(PolicyServerConfig(inference_latency=0.0))
    logging.disable(logging.CRITICAL)
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(echo, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ready.send(f"127.0.0.1:{port}")
    server.wait_for_termination()


def bare_trip(endpoint: str, size: tuple[int, int]) -> Trip:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.connect(endpoint)
    frames = [array.reshape(-1).data for array in observation(size).arrays.values()]
    header = b"h" * 400

    def trip() -> None:
        socket.send_multipart([header, *frames], copy=False)
        _, chunk = socket.recv_multipart(copy=False)
        assert chunk.buffer.nbytes == HORIZON * WIDTH * 4

    return trip


def tactus_trip(
    endpoint: str, size: tuple[int, int], keys: ClientKeys | None = None, images: str = "raw", memory: str = "off"
) -> Trip:
    from tactus.runtime.wire.link import Link, Reply

    link = Link(endpoint, keys=keys, wire=WireConfig(images=images, memory=memory))
    link.hello(RobotSpec("bench", 30.0, features(size), Feature((WIDTH,), "float32")), 30)
    link.reset(0, 0, "")
    seen = observation(size) if images == "raw" else rendered(size)

    def trip() -> None:
        link.request(seen, 0, 0)
        replies: list[Reply] = []
        while not replies:
            link.wait(1.0)
            replies = link.poll()
        assert replies[0].chunk is not None, replies[0].error

    return trip


def lerobot_trip(endpoint: str, size: tuple[int, int]) -> Trip:
    import grpc
    from lerobot.async_inference.helpers import TimedObservation
    from lerobot.transport import services_pb2, services_pb2_grpc
    from lerobot.transport.utils import grpc_channel_options, send_bytes_in_chunks

    stub = services_pb2_grpc.AsyncInferenceStub(grpc.insecure_channel(endpoint, grpc_channel_options()))
    stub.Ready(services_pb2.Empty())
    raw = dict(observation(size).arrays)
    step = iter(range(10**9))

    def trip() -> None:
        timed = TimedObservation(time.time(), next(step), raw, must_go=True)
        stub.SendObservations(send_bytes_in_chunks(pickle.dumps(timed), services_pb2.Observation))
        assert len(pickle.loads(stub.GetActions(services_pb2.Empty()).data)) == HORIZON

    return trip


CONTESTANTS = {
    "bare": (serve_bare, bare_trip),
    "tactus": (serve_tactus, tactus_trip),
    "shared": (serve_tactus, functools.partial(tactus_trip, memory="shared")),
    "jpeg": (serve_tactus, functools.partial(tactus_trip, images="jpeg:90")),
    "curve": (serve_curve, tactus_trip),
    "curve_shared": (serve_curve, functools.partial(tactus_trip, memory="shared")),
    "lerobot": (serve_lerobot, lerobot_trip),
}


def measure(size: tuple[int, int], rounds: int, names: list[str], starts: int = 1) -> dict[str, tuple[float, float]]:
    """Per contestant: median round trip in ms, and the median over blocks of its ratio to bare in that block."""
    blocks: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(starts):
        for name, medians in race(size, rounds // starts, names).items():
            blocks[name] += medians
    bare = blocks[names[0]]
    return {
        name: (statistics.median(medians), statistics.median(m / b for m, b in zip(medians, bare, strict=True)))
        for name, medians in blocks.items()
    }


def race(size: tuple[int, int], rounds: int, names: list[str]) -> dict[str, list[float]]:
    """Per contestant, the median round trip in ms of each block; its first block warms it up and is not there."""
    context = multiprocessing.get_context("spawn")
    servers, trips = [], {}
    try:
        for name in names:
            serve, connect = CONTESTANTS[name]
            here, there = context.Pipe()
            server = context.Process(target=serve, args=(size, there), daemon=True)
            server.start()
            servers.append(server)
            if serve is serve_curve:
                keys = ClientKeys(*here.recv())
                trips[name] = connect(here.recv(), size, keys)
            else:
                trips[name] = connect(here.recv(), size)
        blocks: dict[str, list[float]] = {name: [] for name in names}
        for block in range(rounds // BLOCK + 1):
            for name, trip in trips.items():
                spent = []
                for _ in range(BLOCK):
                    started = time.perf_counter()
                    trip()
                    spent.append((time.perf_counter() - started) * 1000)
                if block:
                    blocks[name].append(statistics.median(spent))
        return blocks
    finally:
        for server in servers:
            server.terminate()
            server.join()


def codec_us(size: tuple[int, int], repeats: int = 2000) -> tuple[float, float]:
    """Median µs of encode and decode."""
    seen = observation(size)
    message = codec.Message(codec.OBSERVE, "session", 1, 1, seen.arrays, {"task": "pick up the cube"})
    frames = codec.encode(message)
    times = []
    for work in (lambda: codec.encode(message), lambda: codec.decode(frames)):
        spent = []
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            spent.append((time.perf_counter() - started) * 1e6)
        times.append(statistics.median(spent))
    return times[0], times[1]


def jpeg_row(size: tuple[int, int], noise: float, quality: int, repeats: int = 60) -> dict[str, float]:
    """MB of the two pictures, as they are and as JPEG, and median ms of packing and unpacking them."""
    message = codec.Message(codec.OBSERVE, arrays=rendered(size, noise).arrays)
    packed = pictures.packed(message, quality)
    times = []
    for work in (lambda: pictures.packed(message, quality), lambda: dict(pictures.unpacked(packed).arrays)):
        spent = []
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            spent.append((time.perf_counter() - started) * 1e3)
        times.append(statistics.median(spent))
    raw, small = (sum(array.nbytes for array in m.arrays.values()) / 1e6 for m in (message, packed))
    return {"mb": raw, "jpeg_mb": small, "pack_ms": times[0], "unpack_ms": times[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400, help="round trips per contestant and size")
    parser.add_argument("--starts", type=int, default=4, help="times that all processes are started anew")
    parser.add_argument("--contestants", default="bare,tactus,shared,jpeg,curve,curve_shared,lerobot")
    parser.add_argument("--qualities", type=int, nargs="*", default=[90], help="of JPEG")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    names = options.contestants.split(",")
    table = {label: measure(size, options.rounds, names, options.starts) for label, size in SIZES.items()}
    encode_us, decode_us = codec_us(SIZES["1.84 MB"])
    jpeg = {
        f"{label}, noise {noise:g}, quality {quality}": jpeg_row(size, noise, quality)
        for label, size in SIZES.items()
        for noise in (0.0, 4.0)
        for quality in options.qualities
    }
    if options.json:
        found = {"round_trip_ms": table, "encode_us": encode_us, "decode_us": decode_us, "jpeg": jpeg}
        json.dump(found, sys.stdout)
        return
    for label, row in table.items():
        cells = [f"{name} {ms:6.3f} ms ({ratio:.2f}x)" for name, (ms, ratio) in row.items()]
        print(f"{label}:  " + "   ".join(cells))
        if {"tactus", "curve"} <= row.keys():
            (plain_ms, plain), (curve_ms, curve) = row["tactus"], row["curve"]
            print(f"          curve against tactus: {curve_ms - plain_ms:+.3f} ms, {curve / plain:.2f}x")
    print(f"1.84 MB: encode {encode_us:.1f} us, decode {decode_us:.1f} us")
    for label, row in jpeg.items():
        smaller = row["mb"] / row["jpeg_mb"]
        spent = f"pack {row['pack_ms']:6.2f} ms, unpack {row['unpack_ms']:6.2f} ms"
        print(f"JPEG of {label}: {row['jpeg_mb']:.3f} MB, {smaller:.0f} times smaller; {spent}")


if __name__ == "__main__":
    main()
