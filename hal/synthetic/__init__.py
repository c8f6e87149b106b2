"""A robot made of arithmetic, for measuring the runtime itself."""

from tactus.hal.synthetic.config import SyntheticConfig

__all__ = ["SyntheticConfig"]
