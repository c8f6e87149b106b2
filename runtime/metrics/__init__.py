"""Metrics of a running node, for Prometheus. Its modules import prometheus_client: load them only when asked for."""
