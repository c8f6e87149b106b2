"""`tactus keygen`: a key pair for one node, to encrypt the wire and say who may connect."""

from __future__ import annotations

import sys
from pathlib import Path

from tactus.runtime.commands.config import Keygen
from tactus.runtime.wire.keys import KeysError, make_keys

USAGE = 2


def main(config: Keygen, arguments: list[str]) -> int:
    """Exit status 2 if the files exist already or cannot be written."""
    try:
        public, secret = make_keys(Path(config.output_dir), config.name)
    except KeysError as error:
        print(f"tactus keygen: {error}", file=sys.stderr)
        return USAGE
    print(f"{secret}  stays on this node: --curve.key={secret}")
    print(f"{public}  goes to the others: a robot's into the policy node's --curve.authorized folder,")
    print(f"{' ' * len(str(public))}  the policy node's to every robot, as --curve.server")
    return 0
