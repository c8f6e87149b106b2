"""Other people's robots at our policy node: servers that speak openpi's and GR00T's protocols.

Each is a client of the node (runtime/wire/link.py), in a process of its own: batching, sessions, checks and limits are
the node's.
"""
