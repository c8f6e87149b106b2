"""`tactus relabel`: a recording once more, with what another policy would have done at each of its frames."""

from __future__ import annotations

from pathlib import Path

from tactus.hal.spec import SpecError
from tactus.runtime.commands.config import Relabel
from tactus.runtime.commands.verification import PASSED, bars, told
from tactus.runtime.policy_node.inference import make
from tactus.runtime.recording.demonstrations import Demonstrations
from tactus.runtime.recording.relabelling import plans_of, write_relabelled


def main(config: Relabel, arguments: list[str]) -> int:
    """Exit status 0 when it is written, 2 if it cannot be."""
    return told("relabel", lambda: _relabel(config))


def _relabel(config: Relabel) -> int:
    if config.dataset_root is None:
        raise SpecError("dataset_root: not given; the folder of a LeRobotDataset")
    source = Path(config.dataset_root)
    target = Path(config.relabelled_root or f"{source.as_posix()}_relabelled")
    if target.exists():
        raise SpecError(f"relabelled_root: {target} exists already; give a folder that does not")
    policy = make(config.policy)
    demonstrations = Demonstrations(source, policy.spec, allow=config.allow)
    with bars() as bar:
        plans = plans_of(policy, demonstrations, config.seed, bar("relabelling", demonstrations.total_frames))
    write_relabelled(source, target, plans)
    print(f"dataset: {target}, {len(demonstrations.episodes)} episodes")
    return PASSED
