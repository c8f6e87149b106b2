"""The ground floor: what a robot is, and the backends that implement it. Imports nothing of ours."""
