"""Policies without weights: scripts that solve a task, and one that counts."""
