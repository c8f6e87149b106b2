"""Diagnosis: why a policy does there what it does not do here, found before anything moves."""
