"""`tactus stop`: an emergency stop for every robot that a policy node serves."""

from __future__ import annotations

import getpass
import socket
import sys
import time

import zmq

from tactus.runtime.commands.config import Stop
from tactus.runtime.policy_node.message_handler import MAX_REASON
from tactus.runtime.wire import codec
from tactus.runtime.wire.address import malformed
from tactus.runtime.wire.codec import Message, WireError
from tactus.runtime.wire.keys import ClientKeys, client_keys
from tactus.runtime.wire.peer import peer

FAILED = 1


def main(config: Stop, arguments: list[str]) -> int:
    """Exit status 0 when every robot has confirmed, 1 if one has not, or there is none."""
    try:
        keys = client_keys(config.curve)
        known, confirmed = stop(config.connect, (config.reason or _who())[:MAX_REASON], config.timeout_s, keys)
    except (zmq.ZMQError, OSError, WireError, ValueError) as error:
        print(f"tactus stop: {config.connect}: {error}", file=sys.stderr)
        return FAILED
    print(f"stopped {confirmed} of the {known} robots at {config.connect}")
    if not known:
        print("tactus stop: the policy node serves no robot", file=sys.stderr)
    elif confirmed < known:
        print("tactus stop: the others did not answer: gone without a word, or cut off from it", file=sys.stderr)
    return 0 if known and confirmed == known else FAILED


def stop(endpoint: str, reason: str, timeout_s: float, keys: ClientKeys | None = None) -> tuple[int, int]:
    """How many robots the node serves, and how many have confirmed.

    Raises TimeoutError if no policy node answers, WireError if it refuses, ZMQError if the address is none.
    """
    if wrong := malformed(endpoint):
        raise ValueError(wrong)
    with peer(endpoint, keys) as node:
        codec.send(node, codec.encode(Message(codec.STOP, meta={"reason": reason})))
        known, confirmed = None, set()
        until_s = time.monotonic() + timeout_s
        while known is None or len(confirmed) < known:
            if not node.poll(max(0, int((until_s - time.monotonic()) * 1000))):
                break
            message = codec.decode(codec.receive(node))
            if message.kind == codec.STOP:
                known = int(message.meta["robots"])
            elif message.kind == codec.STOPPED:
                confirmed.add(message.session)
            elif message.kind == codec.ERROR:
                raise WireError(str(message.meta["code"]), str(message.meta["message"]))
    if known is None:
        raise TimeoutError(f"no policy node answered within {timeout_s:g} s; is `tactus serve` running?")
    return known, len(confirmed)


def _who() -> str:
    try:
        return f"tactus stop by {getpass.getuser()} on {socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name
        return f"tactus stop by {socket.gethostname()}"
