"""Known faults put into the pipelines of ACT, Diffusion, SmolVLA and PI0: is the stage named, and the cause?

    python tests/bench/diagnosis.py [--seeds=1] [--same=50]

Tiny checkpoints through LeRobot's own loading; each fault of tests/faults.py at one stage, everything after it is what
the policy makes of it. Then pairs of equal runs, of other scenes and noise each, in which nothing may be called
different.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import faults

from tactus.runtime.diagnosis.comparison import compare


class Verdict(NamedTuple):
    """stage, cause: whether they were named as they are. said: what was said first."""

    family: str
    fault: str
    stage: bool
    cause: bool
    said: str


def verdicts(root: Path, seeds: int, families: tuple[str, ...] = faults.FAMILIES) -> Iterator[Verdict]:
    for family, policy in faults.policies(root, families):
        for seed in range(seeds):
            seen = faults.observations(seed)
            right = faults.run(policy, seen, None, seed)
            for fault in faults.faults(family):
                found = compare(right, faults.run(policy, seen, fault, seed))
                first = found.first.name if found.first else ""
                told = f"{found.findings[0].name}: {found.findings[0].sentence}" if found.findings else ""
                named = any(cause.lower() in told.lower() for cause in fault.causes)
                yield Verdict(family, fault.name, bool(re.fullmatch(fault.stage, first)), named, f"{first}: {told}")


def alarms(root: Path, pairs: int) -> int:
    """How many of so many pairs of equal runs are called different."""
    called = 0
    for index, (_, policy) in enumerate(faults.policies(root, faults.FAMILIES)):
        for seed in range(index, pairs, len(faults.FAMILIES)):
            seen = faults.observations(100 + seed)
            called += compare(*(faults.run(policy, seen, None, seed) for _ in range(2))).first is not None
    return called


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--same", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found: dict[str, list[Verdict]] = {}
        for verdict in verdicts(Path(scratch), options.seeds):
            found.setdefault(verdict.fault, []).append(verdict)
        called = alarms(Path(scratch), options.same)
    print(f"{'fault':36s} {'stage':>7s} {'cause':>7s}")
    for name, rows in found.items():
        print(f"{name:36s} {sum(r.stage for r in rows):3d}/{len(rows):<3d} {sum(r.cause for r in rows):3d}/{len(rows)}")
    every = [row for rows in found.values() for row in rows]
    for row in every:
        if not (row.stage and row.cause):
            print(f"{row.family}, {row.fault}: {row.said}")
    stage, cause = sum(row.stage for row in every), sum(row.cause for row in every)
    print(f"stage named in {stage} of {len(every)}, cause in {cause}; {called} alarms in {options.same} equal pairs")


if __name__ == "__main__":
    main()
