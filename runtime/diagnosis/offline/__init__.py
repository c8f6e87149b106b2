"""Open-loop evaluation: a policy's chunks on a dataset's observations, beside what was done there."""
