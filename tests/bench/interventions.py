"""A person takes over from the shipped policy on the emulated SO-101, in real time: gaps, jumps, and who drove.

    python tests/bench/interventions.py [--episodes=20] [--patience_s=4] [--folder=outputs/interventions]

`bash launch/so100.sh record --emulated --policy=learned --intervene` with a scripted person, who takes over when the
cube slips or has not been lifted for patience_s, and hands back once it is in the air. From the recording: starved
ticks; how many ticks later than its rule says, held to each frame's poses, the person drove and the policy drove again;
and whether every frame's flag is what the results say. From the flight record, which knows when each command was sent:
the largest speed of a commanded joint in the two ticks around each change, against the Governor's velocity limit, and
in all other ticks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from tactus.hal.arm.joints import SO100
from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Observation
from tactus.runtime.flight.channels import EPISODE, TICK
from tactus.runtime.flight.reader import read_flights
from tactus.runtime.person.config import ScriptedPersonConfig
from tactus.runtime.person.scripted import ScriptedPerson
from tactus.runtime.robot_node.episode import spans

ROOT = Path(__file__).parents[2]
FPS = 30


def record(folder: Path, episodes: int, patience_s: float, more: list[str]) -> None:
    words = ["--emulated", "--policy=learned", "--intervene", "--teleop.type=scripted", f"--episodes={episodes}"]
    words += [f"--teleop.patience_s={patience_s}", "--dataset_video=false", "--dataset_cameras=[]", *more]
    words += [f"--dataset_root={folder / 'data'}", f"--output_dir={folder / 'results'}"]
    words += [f"--record_flight={folder / 'flight'}", "--flight_minutes=120"]
    subprocess.run(["bash", str(ROOT / "launch/so100.sh"), "record", *words], check=True, stdout=sys.stderr)


def due(poses: np.ndarray, by_person: np.ndarray, config: ScriptedPersonConfig) -> list[int]:
    """How many ticks after its rule the person drove, and after its hand-back the policy did, change by change."""
    person = ScriptedPerson(config)
    person._fps, late, wanted, drove = FPS, [], -1, False
    for tick, (pose, drives) in enumerate(zip(poses, by_person, strict=True)):
        seen = Observation({ENVIRONMENT_STATE: pose, STATE: np.zeros(6, np.float32)}, tick=tick)
        person.look(lambda seen=seen: seen)
        if person.wants() is not None and wanted < 0:
            wanted = tick
        if drives != drove:
            late.append(tick - wanted if wanted >= 0 else -1)
            wanted, drove = -1, bool(drives)
            if drives:
                person.reset(np.zeros(6, np.float32))
    return late


def speeds(folder: Path) -> list[np.ndarray]:
    """By attempt and tick after the first: of the joint that is fastest for its limit, as a share of that limit."""
    limits = np.array([joint.velocity for joint in SO100.values()])
    found, commands = [], []
    for record in (record for flight in read_flights(folder) for record in flight.records):
        if record.topic == TICK:
            commands.append((record.log_ns / 1e9, record.data["sent"]))
        elif record.topic == EPISODE and record.data["event"] == "end":
            at_s, sent = (np.array(column) for column in zip(*commands, strict=True))
            found.append((np.abs(np.diff(sent, axis=0)) / np.diff(at_s)[:, None] / limits).max(axis=1))
            commands = []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--patience_s", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/interventions"))
    options, more = parser.parse_known_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not (options.folder / "results").exists():
        record(options.folder, options.episodes, options.patience_s, more)
    config = ScriptedPersonConfig(patience_s=options.patience_s)
    rows = [json.loads(line) for line in (options.folder / "results" / "episodes.jsonl").read_text().splitlines()]
    frames = LeRobotDataset("tactus/data", options.folder / "data").hf_dataset.with_format("numpy")
    columns = {name: np.array(frames[name]) for name in ("episode_index", "intervention", ENVIRONMENT_STATE)}
    changes, elsewhere, wrong = [], [], 0
    late: dict[str, list[int]] = {"took over": [], "was driven by the policy again": []}
    for episode, (row, shares) in enumerate(zip(rows, speeds(options.folder / "flight"), strict=True)):
        own = columns["episode_index"].reshape(-1) == episode
        flags = columns["intervention"].reshape(-1)[own]
        wrong += spans(flags.tolist()) != row["interventions"]
        after = due(columns[ENVIRONMENT_STATE][own], flags, config)
        for index, found in enumerate(late.values()):
            found += after[index::2]
        edges = np.flatnonzero(np.diff(flags.astype(int)))
        near = np.zeros(len(shares), bool)
        for edge in edges:
            near[max(0, edge - 1) : edge + 2] = True
        changes += shares[near].tolist()
        elsewhere += shares[~near].tolist()
    ticks, starved, skipped = (sum(row[key] for row in rows) for key in ("ticks", "starved_ticks", "skipped_ticks"))
    taken = sum(len(row["interventions"]) for row in rows)
    print(f"{len(rows)} attempts, {sum(row['success'] for row in rows)} successes, {taken} interventions")
    print(f"{starved} of {ticks} ticks starved, {skipped} skipped by overruns")
    for what, found in late.items():
        counts = ", ".join(f"{found.count(ticks)} by {ticks}" for ticks in sorted(set(found)))
        print(f"{what}, ticks later than the rule: {counts}")
    print(f"largest speed around a change: {max(changes):.2f} of the velocity limit; elsewhere {max(elsewhere):.2f}")
    print(f"attempts whose frames' flags are not what the results say: {wrong}")


if __name__ == "__main__":
    main()
