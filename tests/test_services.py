"""The systemd units and the container file: as far as they can be checked without systemd or a container engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNITS = sorted((ROOT / "launch" / "systemd").glob("*.service"))
INSTALLED = "/opt/tactus/.venv/bin/tactus"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_one_that_systemd_reads(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    assert INSTALLED in text
    copy = tmp_path / unit.name
    copy.write_text(text.replace(INSTALLED, sys.executable))
    checked = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert checked.returncode == 0 and not checked.stderr.strip(), checked.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_with_keys_that_there_are(unit: Path) -> None:
    line = re.search(rf"^ExecStart={re.escape(INSTALLED)} (.*)$", unit.read_text(), re.MULTILINE)
    assert line is not None
    command, *keys = line[1].split()
    named = [key.partition("=")[0] for key in keys if key.startswith("--")]
    described = subprocess.run(
        [sys.executable, "-m", "tactus", command, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert described.returncode == 0
    for key in named:
        assert re.search(rf"{key}[ =]", described.stdout), f"{unit.name}: tactus {command} has no {key}"


def test_a_robot_that_failed_does_not_move_again_by_itself_and_keeps_its_guardian() -> None:
    unit = (ROOT / "launch" / "systemd" / "tactus-robot.service").read_text()
    assert re.search(r"^Restart=no$", unit, re.MULTILINE) and re.search(r"^KillMode=process$", unit, re.MULTILINE)


def test_what_the_container_copies_is_there() -> None:
    text = (ROOT / "launch" / "Containerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "hal", "policies", "runtime", "tactus"} <= {*copied}
    assert all((ROOT / name).exists() for name in copied)
