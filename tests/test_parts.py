"""Keys of a rig's parts, and other choices than the config file's, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tactus.hal.rig import RigConfig
from tactus.hal.synthetic import SyntheticConfig
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.scripted.config import PickerConfig, TickerConfig
from tactus.runtime.commands.arguments import parse

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
        ("--robot.parts.arm=5", "robot.parts.arm: found 5; expected keys and values"),
        ("--robot.parts.arm.width", "robot.parts.arm.width: found 'true'; expected a whole number"),
        ("--robot.parts.arm.width.more=5", "robot.parts.arm.width: found {'more': 5}; expected a whole number"),
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


def test_another_type_on_the_command_line_forgets_the_files_keys(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("policy: {type: picker, vision: true}\nepisodes: 3\n")
    config = parse("serve", ["--config_path", str(file), "--policy.path=somewhere/model"])
    assert config.policy == LeRobotConfig(path="somewhere/model")
    config = parse("serve", [f"--config_path={file}", "--policy=ticker", "--policy.width=3"])
    assert config.policy == TickerConfig(width=3)
    config = parse("serve", [f"--config_path={file}", "--policy.type=picker", "--policy.horizon=20"])
    assert config.policy == PickerConfig(vision=True, horizon=20)
