"""Keys of a rig's parts, and other choices than the config file's, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tactus.hal.rig import RigConfig
from tactus.hal.synthetic import SyntheticConfig
from tactus.policies.scripted.picker import PickerConfig
from tactus.policies.scripted.ticker import TickerConfig
from tactus.runtime.commands.config import parse

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


def test_another_type_on_the_command_line_forgets_the_files_keys(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("policy: {type: picker, vision: true}\nepisodes: 3\n")
    config = parse("run", ["--config_path", str(file), "--policy.path=somewhere/model"])
    assert (type(config.policy).__module__, config.episodes) == ("tactus.policies.lerobot", 3)
    config = parse("run", [f"--config_path={file}", "--policy=ticker", "--policy.width=3", "--episodes=4"])
    assert (config.policy, config.episodes) == (TickerConfig(width=3), 4)
    config = parse("run", [f"--config_path={file}", "--policy.type=picker", "--policy.horizon=20"])
    assert config.policy == PickerConfig(vision=True, horizon=20)
