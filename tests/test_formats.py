"""What our commands write, our commands read: whole, and as what is left of it after a cut, a bad copy or a clone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_commands import ROOT, TACTUS, TICKER

from tactus.runtime.commands import main

pytestmark = pytest.mark.slow
ROBOT = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=12"]
CELL = "cells/fixed-4_latest_only_threshold-0.5"
SWEEP = ["--episodes=1", "--failures=0", "--sweep.latency=[fixed:0,fixed:4]"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Commands that run in this process take signals over."""
    kept = {number: signal.getsignal(number) for number in (2, 15, 1, 10)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with everything that commands write, and a policy node at FOLDER/node."""
    folder = tmp_path_factory.mktemp("w")
    serve = subprocess.Popen(
        [*TACTUS, "serve", f"--connect=ipc://{folder}/node", *TICKER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert serve.stdout is not None and "policy node" in serve.stdout.readline()
        robot = [*ROBOT, f"--connect=ipc://{folder}/node"]
        for arguments in (
            ["record", *robot, "--robot.cameras=1", "--robot.image_size=[64,80]", "--episodes=2",
             f"--dataset_root={folder}/data", f"--output_dir={folder}/record", "--record_actions",
             f"--record_flight={folder}/flight"],
            ["eval", *robot, "--episodes=2", f"--output_dir={folder}/eval"],
            ["run", *robot, "--robot.fps=100", "--episodes=1", f"--output_dir={folder}/run"],
            ["eval", *robot, *SWEEP, f"--output_dir={folder}/sweep"],
            ["keygen", "a", f"--output_dir={folder}/keys"],
        ):  # fmt: skip
            assert main(arguments) == 0, arguments
        [flight] = (folder / "flight").glob("*.mcap")
        flight.rename(folder / "flight" / "flight-20260101T000000Z-0001.mcap")
        (folder / "yaml").mkdir()
        (folder / "yaml" / "a.yaml").write_text("robot: {type: synthetic, width: 3, steps: 12}\nepisodes: 1\n")
        yield folder
    finally:
        serve.terminate()
        serve.wait(timeout=60)


NODE, IN, OUT = "{node}", "{in}", "{out}"
RUN = [*ROBOT, f"--connect={NODE}", "--start_timeout_s=20"]
FLIGHT = "flight-20260101T000000Z-0001.mcap"
NPZ = "actions/episode_00000.npz"
READERS: dict[str, tuple[str, list[str], list[str]]] = {
    "replay a dataset": (
        "data",
        ["replay", *ROBOT, f"--actions={IN}", f"--output_dir={OUT}"],
        ["meta/info.json", "data/chunk-000/file-000.parquet"],
    ),
    "replay actions": ("record", ["replay", *ROBOT, f"--actions={IN}/{NPZ}", f"--output_dir={OUT}"], [NPZ]),
    "resume": (
        "eval",
        ["eval", *RUN, "--episodes=3", "--resume", f"--output_dir={IN}"],
        ["config.json", "episodes.jsonl", "timings.jsonl"],
    ),
    "resume a sweep": (
        "sweep",
        ["eval", *RUN, *SWEEP, "--resume", f"--output_dir={IN}"],
        ["sweep.json", f"{CELL}/config.json"],
    ),
    "report": (
        "sweep",
        ["report", IN],
        ["sweep.json", f"{CELL}/config.json", f"{CELL}/episodes.jsonl", f"{CELL}/timings.jsonl"],
    ),
    "replay-flight": ("flight", ["replay-flight", f"{IN}/{FLIGHT}"], [FLIGHT]),
    "replay a ring": ("flight", ["replay-flight", IN], [FLIGHT]),
    "why": ("flight", ["why", f"{IN}/{FLIGHT}", "--tick=3", f"--images={OUT}"], [FLIGHT]),
    "latency trace": (
        "run",
        ["eval", *RUN, "--episodes=1", f"--latency=trace:{IN}/latency.trace", f"--output_dir={OUT}"],
        ["latency.trace"],
    ),
    "config file": (
        "yaml",
        ["eval", f"--config_path={IN}/a.yaml", f"--connect={NODE}", f"--output_dir={OUT}"],
        ["a.yaml"],
    ),
}
"""What reads: the folder it is given, its command, and the files in it that it cannot do without."""


def whole(file: Path) -> None:
    pass


def missing(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])


def pointer(file: Path) -> None:
    file.write_bytes(POINTER)


def a_list(file: Path) -> None:
    file.write_bytes(b"[]")


def a_number(file: Path) -> None:
    file.write_bytes(b"3.5\n")


def nested(file: Path) -> None:
    file.write_bytes(b"[" * 100_000)


def binary(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 20)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


Damage = Callable[[Path], None]
DAMAGES: list[Damage] = [missing, empty, cut, pointer, a_list, a_number, nested, binary, a_folder]
MAY_BE = {
    # a run that was killed leaves these, and what is there of them is used
    ("episodes.jsonl", missing), ("episodes.jsonl", empty), ("episodes.jsonl", cut), (FLIGHT, cut),
    # whoever takes this one away has its cells found again; they say themselves of what they are
    ("sweep.json", missing),
    ("latency.trace", a_number), ("latency.trace", cut), ("a.yaml", empty), ("a.yaml", cut),
}  # fmt: skip


def read(written: Path, tmp_path: Path, reader: str) -> tuple[Path, list[str]]:
    source, command, _ = READERS[reader]
    folder = tmp_path / "in"
    shutil.copytree(written / source, folder)
    places = {NODE: f"ipc://{written}/node", IN: str(folder), OUT: str(tmp_path / "out")}
    for sign, place in places.items():
        command = [each.replace(sign, place) for each in command]
    return folder, command


@pytest.mark.parametrize("reader", READERS)
def test_what_is_written_is_read(written: Path, tmp_path: Path, reader: str) -> None:
    _, command = read(written, tmp_path, reader)
    assert main(command) == 0


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(("reader", "file"), [(name, file) for name, reader in READERS.items() for file in reader[2]])
def test_what_is_left_of_it_is_told(
    written: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], reader: str, file: str, damage: Damage
) -> None:
    folder, command = read(written, tmp_path, reader)
    damage(folder / file)
    others = [path for path in folder.rglob("*.json*") if path != folder / file and path.name != "sweep.json"]
    before = {path: path.read_bytes() for path in others}
    may_be = (Path(file).name, damage) in MAY_BE and not (reader == "report" and file == "sweep.json")
    capfd.readouterr()
    status = main(command)  # an exception is what would be a traceback
    told = capfd.readouterr().err.strip()
    if may_be:
        assert status in (0, 2, 3), told
        return
    assert status == 2, told
    assert len(told) < 600 and "Traceback" not in told and "Errno" not in told, told
    assert Path(file).name in told or str(folder) in told, "which file it is"
    assert damage is not pointer or "Git LFS pointer: `git lfs pull`" in told, told
    assert {path: path.read_bytes() for path in before} == before, "what is refused stays as it is"


PARTS = [
    "data", "videos", "meta/tasks.parquet", "meta/episodes", "meta/stats.json", "meta/info.json", "meta",
    "data/chunk-000/file-000.parquet", "meta/tactus.jsonl",
]  # fmt: skip


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=[pytest.mark.long] * (part not in PARTS[:2])) for part in PARTS]
)
def test_a_folder_that_is_here_is_no_question_to_the_hub(written: Path, tmp_path: Path, part: str) -> None:
    """Replay reads info.json and data; what lacks of the rest does not matter to it."""
    folder, command = read(written, tmp_path, "replay a dataset")
    gone = folder / part
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as hub:

        def listen() -> None:
            while True:
                try:
                    peer, _ = hub.accept()
                except OSError:
                    return
                asked.append(peer.recv(1000))
                peer.close()

        threading.Thread(target=listen, daemon=True).start()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}", "HF_HOME": str(tmp_path / "hf")}
        command = [sys.executable, "-m", "tactus", *command]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
        hub.shutdown(socket.SHUT_RDWR)
    assert not asked and "Traceback" not in done.stderr
    needed = part.startswith(("data", "meta/info")) or part == "meta"
    assert done.returncode == (2 if needed else 0), done.stderr
