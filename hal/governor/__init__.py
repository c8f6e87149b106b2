"""The safety layer in front of every robot with torque."""
