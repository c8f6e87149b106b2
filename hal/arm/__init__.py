"""Serial arms: a joint table, a bus and a calibration make a Robot, always behind a Governor."""

from tactus.hal.arm.config import ArmConfig, KochConfig, KochLeaderConfig, So100Config, So100LeaderConfig

__all__ = ["ArmConfig", "KochConfig", "KochLeaderConfig", "So100Config", "So100LeaderConfig"]
