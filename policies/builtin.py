"""Importing this module registers every policy's config by name, without importing what the policies need."""

from policies import expert, flow, lerobot, picker, replay, ticker

__all__ = ["expert", "flow", "lerobot", "picker", "replay", "ticker"]
