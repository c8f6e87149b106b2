"""Hostile peers: messages that look almost right, and those who send them."""
