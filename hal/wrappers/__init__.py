"""Wrappers of a robot: noise on its actions, or a person who judges its episodes."""
