"""Importing this module registers every policy's config by name, without importing what the policies need."""

# in this order they are listed to the user
# isort: skip_file

from tactus.policies.scripted import expert
from tactus.policies.flow import config as flow
from tactus.policies import lerobot
from tactus.policies.scripted import picker
from tactus.policies import replay
from tactus.policies.scripted import ticker

__all__ = ["expert", "flow", "lerobot", "picker", "replay", "ticker"]
