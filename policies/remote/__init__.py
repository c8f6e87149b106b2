"""Policies that other people's servers answer for: openpi's (websocket) and NVIDIA Isaac-GR00T's (ZeroMQ REQ/REP).

They are the policy node's, as any other policy: what the server does wrong becomes a PolicyError, in one sentence.
"""
