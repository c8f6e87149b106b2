"""The robot node: a loop that observes and acts at a fixed rate, its action queue and its clock."""
