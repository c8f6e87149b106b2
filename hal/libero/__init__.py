"""LIBERO's simulated manipulation tasks as a Robot. Importing this does not import LIBERO."""

from tactus.hal.libero.config import LiberoConfig

__all__ = ["LiberoConfig"]
