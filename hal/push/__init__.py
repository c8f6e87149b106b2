"""A planar push in MuJoCo: a small task of our own, quick enough to learn on in minutes."""

from tactus.hal.push.config import PushConfig

__all__ = ["PushConfig"]
