"""Pictures of every size are recorded, filmed, shown and read back: no encoder is given one that it cannot take."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from picture_sizes import SIZES, name, picture
from test_commands import ROOT, TACTUS, TICKER
from test_record import load

from tactus.hal.spec import SpecError, image
from tactus.runtime.evaluation.video import side_by_side
from tactus.runtime.recording.picture_format import FASTEST, LARGEST, SMALLEST, picture_format

pytestmark = [pytest.mark.slow, pytest.mark.realtime]
ROBOT = ["--robot.type=picture_sizes:SizesConfig"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run([*TACTUS, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


@contextlib.contextmanager
def policy_node(folder: Path) -> Iterator[str]:
    endpoint = f"--connect=ipc://{folder}/node"
    serve = subprocess.Popen([*TACTUS, "serve", endpoint, *TICKER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert serve.stdout is not None and "policy node" in serve.stdout.readline()
        yield endpoint
    finally:
        serve.terminate()
        serve.wait(timeout=60)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Two episodes of four ticks, seen by everything that makes a file of pictures at once."""
    folder = tmp_path_factory.mktemp("sizes")
    with policy_node(folder) as endpoint:
        written = [f"--dataset_root={folder}/data", f"--output_dir={folder}/o", f"--view={folder}/v.rrd"]
        done = run("record", *ROBOT, endpoint, "--episodes=2", "--video", f"--record_flight={folder}/f", *written)
    return folder, done


@pytest.fixture(scope="module")
def data(recorded: tuple[Path, subprocess.CompletedProcess[str]]) -> Any:
    folder, done = recorded
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    return load(folder / "data")


@pytest.mark.long
def test_all_of_it_is_there(recorded: tuple[Path, subprocess.CompletedProcess[str]], data: Any) -> None:
    folder, done = recorded
    assert (data.num_episodes, data.num_frames) == (2, 8)
    assert "Traceback" not in done.stderr
    assert (folder / "v.rrd").stat().st_size > 10_000
    if shutil.which("ffprobe"):
        asked = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames,width,height"]
        film = json.loads(
            subprocess.run(
                [*asked, "-of", "json", str(folder / "o" / "video.mp4")], capture_output=True, text=True
            ).stdout
        )["streams"][0]
        assert int(film["nb_read_frames"]) == 5 and film["width"] <= 4096


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_a_size_is_read_back_as_it_was(
    recorded: tuple[Path, subprocess.CompletedProcess[str]], data: Any, size: tuple[int, int]
) -> None:
    key = name(*size)
    kept = data.features[key]["dtype"]
    told = f"{key}: kept as single pictures, not as mp4" in recorded[1].stdout.replace("\n", "")
    assert told == (kept == "image"), "what is not as it was asked for is said"
    fits = min(size) >= SMALLEST and size[0] <= LARGEST[0] and size[1] <= LARGEST[1]
    assert kept == ("video" if fits else "image")
    for index, tick in ((0, 0), (3, 3), (6, 2)):
        found = (data[index][key].permute(1, 2, 0).numpy() * 255).round()
        expected = picture(*size, tick)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < (3 if kept == "video" else 1e-6)


def test_a_rate_or_a_picture_that_nothing_takes() -> None:
    camera = image(64, 64)
    assert picture_format("camera", camera, FASTEST, video=True) == ("video", "")
    kept, why = picture_format("camera", camera, FASTEST + 1, video=True)
    assert kept == "image" and "up to 240 frames per second, found 241" in why
    assert picture_format("camera", camera, FASTEST + 1, video=False) == ("image", "")
    with pytest.raises(SpecError, match="takes uint8 of 3: RGB"):
        picture_format("camera", replace(camera, shape=(64, 64, 1)), 30, video=False)


@pytest.mark.parametrize("sizes", [SIZES, [(1, 9000)] * 64, [(240, 320)] * 64, [(480, 640), (240, 240)], [(9000, 1)]])
def test_a_film_has_a_width_that_players_take(sizes: list[tuple[int, int]]) -> None:
    film = side_by_side([picture(*size, 0) for size in sizes], 256, 3840)
    assert 1 <= film.shape[0] <= 256 and film.shape[1] <= 3840 + len(sizes)


@pytest.mark.long
def test_failed_episodes_of_a_sweep_show_cameras_of_different_sizes(tmp_path: Path) -> None:
    sizes = ["--robot.sizes=[[48,64],[64,48],[4,900],[1,1]]", "--robot.fails=true"]
    with policy_node(tmp_path) as endpoint:
        out = run("eval", *ROBOT, *sizes, endpoint, "--sweep", "--episodes=2", f"--output_dir={tmp_path}/s")
    assert out.returncode == 0 and "not filmed" not in out.stdout + out.stderr, out.stderr + out.stdout
    strips = [*(tmp_path / "s" / "failures").glob("*.jpg")]
    assert strips and all(cv2.imread(str(strip)) is not None for strip in strips)
