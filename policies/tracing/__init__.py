"""Traces of a policy's inference, stage by stage: written by whoever runs it, read by `tactus compare`."""
