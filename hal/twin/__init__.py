"""An emulated rig: servo buses on pseudo-terminals, a MuJoCo world behind them, cameras as MJPEG streams."""
