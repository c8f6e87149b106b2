"""Cameras as Robots: devices, streams, video files and images."""

from tactus.hal.camera.config import CameraConfig

__all__ = ["CameraConfig"]
