"""Episodes as data: written as a LeRobotDataset, and recorded actions read back."""
