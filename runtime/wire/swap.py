"""An order for another policy at a policy node that serves: its keys go there, its weights are there.

SWAP →      ← ACCEPTED: it is being loaded      ← ACCEPTED: it answers
            ← REFUSE: why not; nothing has changed
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message
from tactus.runtime.wire.keys import ClientKeys
from tactus.runtime.wire.link import Refused, Unreachable
from tactus.runtime.wire.peer import check_trusted, peer

ANSWER_S = 5.0
"""A policy node that does not even say that it has begun by then is not there."""


def swap(
    endpoint: str,
    policy: Mapping[str, Any],
    robot: str,
    timeout_s: float,
    keys: ClientKeys | None = None,
    begun: Callable[[], None] = lambda: None,
) -> Mapping[str, Any]:
    """Have the policy node load this policy and answer with it; returns `policy`, `robots` and `took_s` when it does.

    policy: keys as a config file has them. robot: a session or a robot's name; empty for all. begun: told that it is
    being loaded. Raises Refused with the node's reasons, Unreachable for an address that is none or on another machine
    without keys, or if nothing was heard in time.
    """
    check_trusted(endpoint, keys, "a swap is taken")
    with peer(endpoint, keys) as node:
        codec.send(node, codec.encode(Message(codec.SWAP, seq=1, meta={"policy": policy, "robot": robot})))
        until_s = time.monotonic() + min(ANSWER_S, timeout_s)
        while (left_s := until_s - time.monotonic()) > 0:
            if not node.poll(max(1, int(left_s * 1000))):
                continue
            answer = codec.decode(codec.receive(node))
            if answer.kind == codec.REFUSE:
                raise Refused([str(reason) for reason in answer.meta["reasons"]])
            if answer.kind == codec.ERROR:
                raise Refused([f"{answer.meta['code']}: {answer.meta['message']}"])
            if answer.kind == codec.ACCEPTED and "policy" in answer.meta:
                return answer.meta
            if answer.kind == codec.ACCEPTED:
                until_s = time.monotonic() + timeout_s
                begun()
    raise Unreachable(f"no policy node at {endpoint} has answered in time; is `tactus serve` running there?")
