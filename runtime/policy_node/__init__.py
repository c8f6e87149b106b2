"""The policy node: one policy, served to any number of robots."""
