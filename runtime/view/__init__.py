"""What a robot node does, to look at in Rerun. Its modules import rerun: load them only when asked for."""
