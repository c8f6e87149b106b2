"""Servos on a serial bus: one small interface, Dynamixel Protocol 2.0 and Feetech STS behind it, and calibration."""
