"""Whose robots a policy node can answer besides its own."""

from typing import Literal

Kind = Literal["openpi", "gr00t"]
