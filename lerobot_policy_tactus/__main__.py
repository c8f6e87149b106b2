"""Write a folder for `lerobot-rollout --policy.path=FOLDER`: where the policy node is, and nothing of a model.

python -m lerobot_policy_tactus FOLDER --action_width=6 --endpoint=tcp://HOST:5555 --robot=NAME --fps=30
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import make_pre_post_processors
from lerobot.utils.constants import ACTION

from tactus.runtime.lerobot_policy.configuration_tactus import TactusConfig
from tactus.runtime.wire.address import malformed


def main() -> None:
    """The folder's configuration and processors; weights there are none."""
    parser = argparse.ArgumentParser(prog="python -m lerobot_policy_tactus", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--action_width", type=int, required=True, help="dimensions of the robot's action")
    parser.add_argument("--endpoint", default=TactusConfig.endpoint, help="of the policy node")
    parser.add_argument("--robot", default=TactusConfig.robot, help="name that the node is told")
    parser.add_argument("--fps", type=float, default=TactusConfig.fps, help="control rate of the robot")
    given = parser.parse_args()
    action = {ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(given.action_width,))}
    for name, value in (("action_width", given.action_width), ("fps", given.fps)):
        if value <= 0:
            parser.error(f"--{name}: found {value:g}; must be positive")
    if wrong := malformed(given.endpoint):
        parser.error(f"--endpoint: {wrong}")
    try:
        folder = given.folder.expanduser()
        folder.mkdir(parents=True)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        parser.error(f"{given.folder} cannot be made: {why}; give a folder that is not there yet")
    config = TactusConfig(
        endpoint=given.endpoint, robot=given.robot, fps=given.fps, output_features=action, device="cpu"
    )
    config.save_pretrained(folder)
    for processor in make_pre_post_processors(config):
        processor.save_pretrained(folder)


if __name__ == "__main__":
    main()
