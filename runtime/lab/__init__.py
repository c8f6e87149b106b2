"""The asynchronous laboratory: the same episodes under many latencies and settings, on many workers, and a report.

grid         which settings: a cell each, and the synchronous reference
experiment   the folder: one Results per cell, one fingerprint for all
schedule     which episode of which cell next, for which worker (pure)
player       plays episodes: a robot, a link, one RobotNode per cell
worker       a player in a process of its own, JSON lines in and out
pool         workers: local processes, or actors on a Ray cluster (ray_pool)
conduct      schedule and pool and experiment, joined
measures     success with intervals, paired differences, seams, time split (pure)
recommend    which setting for which latency, and why (pure)
figures      plots, as SVG and PNG
timeline     one episode as a picture, and which
report       report.html, CSV and PNG files
"""
