"""`tactus keygen`: a key pair for one node, to encrypt the wire and say who may connect."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tactus.runtime.wire.keys import KeysError, make_keys

USAGE = 2


def main(arguments: list[str]) -> int:
    """Exit status 2 if the files exist already or cannot be written."""
    parser = argparse.ArgumentParser(prog="tactus keygen", description=__doc__)
    parser.add_argument("name", help="whose: the policy node's or a robot's, e.g. policy or left_arm; names the files")
    parser.add_argument("--output_dir", default="keys", type=Path, help="where the two files go (default: keys/)")
    given = parser.parse_args(arguments)
    try:
        public, secret = make_keys(given.output_dir, given.name)
    except KeysError as error:
        print(f"tactus keygen: {error}", file=sys.stderr)
        return USAGE
    print(f"{secret}  stays on this node: --curve.key={secret}")
    print(f"{public}  goes to the others: a robot's into the policy node's --curve.authorized folder,")
    print(f"{' ' * len(str(public))}  the policy node's to every robot, as --curve.server")
    return 0
