"""The wire between robot node and policy node: messages, the robot's end of it, handshake, keys, latency models."""
