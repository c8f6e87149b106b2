"""The robots that a policy node serves: whether one more may open a session, and which sessions are over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from tactus.runtime.policy_node.limits import STRANGER_HZ, STRANGERS, LimitsConfig
from tactus.runtime.policy_node.robot_session import RobotSession
from tactus.runtime.rate import Rate

QUIET_S = 2.0
"""A robot that has been silent for so long is sent a sign of life, which finds out whether it is still connected."""
EVERY_S = 1.0


class SessionTable:
    """Sessions by routing id, within limits.

    is_connected: whether the robot under a routing id is, by sending it a sign of life.
    """

    def __init__(self, limits: LimitsConfig, is_connected: Callable[[bytes], bool]) -> None:
        self._limits = limits
        self._is_connected = is_connected
        self._peers: dict[bytes, RobotSession] = {}
        self._swept_s = 0.0
        self._strangers: OrderedDict[bytes, Rate] = OrderedDict()  # without a session; who was heard last, last
        self._all_strangers = Rate(limits.rate_hz)

    def get(self, peer_id: bytes) -> RobotSession | None:
        return self._peers.get(peer_id)

    def __getitem__(self, peer_id: bytes) -> RobotSession:
        return self._peers[peer_id]

    def items(self) -> Iterator[tuple[bytes, RobotSession]]:
        return iter([*self._peers.items()])

    def __len__(self) -> int:
        return len(self._peers)

    def full(self, owner: bytes) -> str:
        """Why no other robot can be served for this key; empty if one can."""
        limits = self._limits
        if owner and sum(peer.owner == owner for peer in self._peers.values()) >= limits.sessions_per_key:
            return f"{limits.sessions_per_key} sessions are open under this key, which is limits.sessions_per_key"
        if len(self._peers) >= limits.sessions:
            return f"{limits.sessions} sessions are open, which is limits.sessions"
        return ""

    def unreachable(self) -> list[bytes]:
        """Those whose robot is not connected at this moment."""
        return [peer_id for peer_id in self._peers if not self._is_connected(peer_id)]

    def add(self, peer_id: bytes, session: str, owner: bytes, now_s: float) -> RobotSession:
        self._strangers.pop(peer_id, None)
        self._peers[peer_id] = peer = RobotSession(session, owner, Rate(self._limits.rate_hz), heard_s=now_s)
        return peer

    def allows(self, peer_id: bytes, now_s: float) -> bool:
        """Whether one more message of theirs may be read. Those without a session share the rate of one, of which each
        has a small part: one who floods does not keep the others from their HELLO."""
        if (peer := self._peers.get(peer_id)) is not None:
            return peer.rate.allows(now_s)
        own = self._strangers.pop(peer_id, None) or Rate(STRANGER_HZ)
        self._strangers[peer_id] = own
        if len(self._strangers) > STRANGERS:
            self._strangers.popitem(last=False)
        return own.allows(now_s) and self._all_strangers.allows(now_s)

    def remove(self, peer_id: bytes) -> None:
        del self._peers[peer_id]

    def due(self, now_s: float) -> bool:
        """Whether it is time, EVERY_S after the last time, to ask which sessions are `over`."""
        return now_s - self._swept_s >= EVERY_S

    def over(self, now_s: float, allowed: Callable[[bytes], bool]) -> list[tuple[bytes, str]]:
        """Sessions to end and why. allowed: whether a key is still listed."""
        self._swept_s = now_s
        reasons = [(peer_id, self._reason(peer_id, peer, now_s, allowed)) for peer_id, peer in self._peers.items()]
        return [(peer_id, reason) for peer_id, reason in reasons if reason]

    def _reason(self, peer_id: bytes, peer: RobotSession, now_s: float, allowed: Callable[[bytes], bool]) -> str:
        if not allowed(peer.owner):
            return "its key is not authorized any more"
        silent_s = now_s - peer.heard_s
        if silent_s > self._limits.idle_s:
            return f"silent for {silent_s:.0f} s"
        if silent_s < QUIET_S or self._is_connected(peer_id):
            peer.gone_s = None
            return ""
        peer.gone_s = now_s if peer.gone_s is None else peer.gone_s
        return "its connection is gone" if now_s - peer.gone_s >= self._limits.gone_s else ""
