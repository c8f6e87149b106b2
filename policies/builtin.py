"""Importing this module registers every policy's config by name, without importing what the policies need."""

from tactus.policies.flow import config as flow
from tactus.policies.lerobot import config as lerobot
from tactus.policies.remote import config as remote
from tactus.policies.scripted import config as scripted

__all__ = ["flow", "lerobot", "remote", "scripted"]
