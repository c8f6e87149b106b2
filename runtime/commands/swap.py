"""`tactus swap`: another policy answers at a policy node that serves, at once and without a robot standing still."""

from __future__ import annotations

import sys

import zmq

from tactus.hal.config import encode
from tactus.runtime.commands.config import Swap
from tactus.runtime.wire.keys import client_keys
from tactus.runtime.wire.link import Refused, Unreachable
from tactus.runtime.wire.swap import swap

FAILED, REFUSED = 1, 3


def main(config: Swap, arguments: list[str]) -> int:
    """Exit status 0 when the new policy answers, 3 if the policy node refuses, 1 if there is none."""

    def begun() -> None:
        print(f"the policy node at {config.connect} is loading it", flush=True)

    assert config.policy is not None
    try:
        keys = client_keys(config.curve)
        found = swap(config.connect, encode(config.policy), config.robot, config.timeout_s, keys, begun)
    except Refused as error:
        reasons = "\n".join(f"  - {reason}" for reason in error.reasons)
        print(f"tactus swap: the policy node refused, and nothing has changed:\n{reasons}", file=sys.stderr)
        return REFUSED
    except (Unreachable, zmq.ZMQError, OSError, ValueError) as error:
        print(f"tactus swap: {error}", file=sys.stderr)
        return FAILED
    print(f"{found['policy']} answers {found['robots']} robots, after {found['took_s']:.1f} s of loading")
    return 0
