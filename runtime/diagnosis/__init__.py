"""Diagnosis: why a policy does there what it does not do here, and whether it is any good, before it moves anything."""
