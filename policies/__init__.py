"""Policies: the Policy interface and its implementations. Of `hal`, only `tactus.hal.spec` is known here."""
