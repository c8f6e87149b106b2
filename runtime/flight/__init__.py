"""Flight records: everything that happened between a robot and its policy, to replay and to ask why."""

from __future__ import annotations


class FlightError(RuntimeError):
    """A folder that cannot be recorded into, or a record that cannot be read: what was found, and what to do."""
