"""Diagnosis: why a policy succeeds there and fails here, and whether it is any good before it moves anything."""
