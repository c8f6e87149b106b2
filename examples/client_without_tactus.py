"""A robot without Tactus: the wire in pyzmq and msgpack, for any language that has both (docs/wire.md describes it).

tactus serve --policy.type=ticker --policy.width=2 --connect=tcp://127.0.0.1:5555 &
python examples/client_without_tactus.py tcp://127.0.0.1:5555
"""

import sys
import time
import uuid

import msgpack
import numpy as np
import zmq

pack = msgpack.Packer().pack
session = uuid.uuid4().hex
socket = zmq.Context().socket(zmq.DEALER)
socket.setsockopt(zmq.ROUTING_ID, session.encode())  # a session has the name of its socket
socket.setsockopt(zmq.RCVTIMEO, 10_000)
socket.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555")


def send(kind, seq=0, tick=0, arrays=None, **meta):
    """One small header, then each array as it lies in memory."""
    arrays = arrays or {}
    table = pack([(name, str(array.dtype), array.shape) for name, array in arrays.items()])
    header = pack((2, kind, session, seq, tick, table, meta))  # 2: version of the protocol
    socket.send_multipart([header, *arrays.values()])


def receive(wanted):
    header, *frames = socket.recv_multipart()
    _, kind, _, _, tick, table, meta = msgpack.unpackb(header)
    if kind != wanted:
        sys.exit(f"{kind}: {meta}")  # REFUSE lists every mismatch, ERROR says what the policy could not do
    layout = zip(msgpack.unpackb(table), frames, strict=True)
    return tick, {name: np.frombuffer(frame, dtype).reshape(shape) for (name, dtype, shape), frame in layout}, meta


state = {"shape": [2], "dtype": "float32"}
action = {"shape": [2], "dtype": "float32", "mode": ["delta", "binary"]}
about = {"name": "mine", "fps": 30.0, "observations": {"observation.state": state}, "action": action, "details": {}}
send("HELLO", robot=about, real_time=True)
policy = receive("WELCOME")[2]["policy"]
print(f"the policy is {policy['name']}, chunks of {policy['horizon']}")

send("RESET", seq=1, episode=0, seed=1000, task="")
for seq, tick in enumerate((0, 20, 40), start=2):  # RESET and OBSERVE share one count
    seen = {"observation.state": np.array([0.1, tick], np.float32)}
    stamps_ns = [time.monotonic_ns()]
    send("OBSERVE", seq, tick, seen, task="", stamps_ns=stamps_ns, ticks_left=0, merged=seq - 1, reset=1)
    start, arrays, meta = receive("CHUNK")
    print(f"actions for ticks {start} to {start + len(arrays['action']) - 1}: {arrays['action'][:3].tolist()} …")
send("BYE")
