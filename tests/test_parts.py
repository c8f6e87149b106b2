"""Keys of a rig's parts on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hal.rig import RigConfig
from hal.synthetic import SyntheticConfig
from runtime.commands.config import parse

RIG = """
robot:
  type: rig
  parts:
    arm: {type: synthetic, width: 3, fps: 20}
"""


def test_a_parts_key_on_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rig.yaml"
    file.write_text(RIG)
    arguments = ["--robot.parts.arm.width=5", "--robot.parts.camera.type=synthetic", f"--config_path={file}"]
    config = parse("run", arguments).robot
    assert isinstance(config, RigConfig)
    assert config.parts == {"arm": SyntheticConfig(width=5, fps=20), "camera": SyntheticConfig()}


@pytest.mark.parametrize(
    "argument, words",
    [
        ("--robot.parts.arm=5", "expected --robot.parts.NAME.KEY=VALUE"),
        ("--robot.parts.arm.width", "expected --robot.parts.NAME.KEY=VALUE"),
        ("--robot.parts.arm.width.more=5", "width is not a part"),
        ("--robot.parts.arm.height=5", "height"),
    ],
)
def test_a_parts_key_that_cannot_be_is_told(
    tmp_path: Path, argument: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rig.yaml"
    file.write_text(RIG)
    with pytest.raises(SystemExit) as stop:
        parse("run", ["--config_path", str(file), argument])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
