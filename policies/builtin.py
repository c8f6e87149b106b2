"""Importing this module registers every policy's config by name, without importing what the policies need."""

from tactus.policies import lerobot, replay
from tactus.policies.flow import config as flow
from tactus.policies.scripted import expert, picker, ticker

__all__ = ["expert", "flow", "lerobot", "picker", "replay", "ticker"]
