"""`tactus eval --sweep` and `--workers`: the same episodes under many latencies and settings, by many workers.

sweep_settings   which settings to compare: a cell each, and the synchronous reference
sweep_folder     the folder: one Results per cell, one fingerprint for all
scheduler        which episode of which cell next, for which worker (pure)
episode_runner   plays episodes: a robot, a link to each policy, one RobotNode per cell
worker           an episode runner in a process of its own, JSON lines in and out
pool             the workers: local processes, or actors on a Ray cluster (ray_pool)
worker_limit     how many workers this machine carries
coordinator      gives the scheduler's episodes to the pool's workers, and writes results down
measures         success with intervals, paired differences, seams, time split (pure)
recommend        which setting for which latency, and why (pure)
worth            several policies beside each other, and what a faster one is worth (pure)
figures          plots, as SVG and PNG
timeline         one episode as a picture, and which
report           report.html, CSV and PNG files
"""
