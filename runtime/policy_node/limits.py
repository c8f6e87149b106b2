"""Limits of a policy node per robot, so that a slow, silent or flooding one costs the others little.

What is kept for a session, at the most: RECEIVE_HWM messages not yet read, one observation that waits, one that is
being answered, the latest answer, and SEND_HWM answers that its robot has not read. A message over `message_mb` ends
its connection before it is held in memory.
"""

from __future__ import annotations

from tactus.hal.config import Config, Count, Positive, Seconds

RECEIVE_HWM, SEND_HWM = 8, 16
"""Messages per connection in libzmq's queues; beyond them a sender waits, and answers are dropped."""
BATCH_WAIT_MS = 10.0
"""How long an observation may wait for other robots' to share a forward pass, where nothing else is said."""
ANYBODY = "anybody"
"""In the place of a key's name: whoever can reach the node, which is then bound to this machine."""
TURN = 64
"""Messages taken in before the policy gets a turn, so that a flood cannot keep it from its work."""
STRANGER_HZ, STRANGERS = 50.0, 256
"""Messages per second from one who has no session yet, and how many of those are told apart. A robot that introduces
itself sends some 15 a second."""


class LimitsConfig(Config):
    """Of a policy node, per session where nothing else is said."""

    message_mb: Positive = 32.0
    """the largest message, in MB"""
    rate_hz: Positive = 2000.0
    """messages per second; more are dropped unread, and counted"""
    sessions: Count = 64
    """sessions at once"""
    sessions_per_key: Count = 16
    """sessions at once under one CURVE key"""
    idle_s: Seconds = 600.0
    """a session that is silent for so long is ended; its robot opens another when it goes on"""
    gone_s: Seconds = 10.0
    """a session whose connection has been away for so long is ended"""

    @property
    def max_bytes(self) -> int:
        """Of a message."""
        return int(self.message_mb * 1e6)
