"""A small policy that looks, as a LeRobot plugin: --env.discover_packages_path=tactus.policies.keypoints.

LeRobot finds configuration, model and processors by the names of these modules.
"""
