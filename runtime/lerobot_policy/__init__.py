"""A LeRobot policy that our policy node answers for: --policy.type=tactus of lerobot-eval and lerobot-rollout.

LeRobot finds configuration, model and processors by the names of these modules. Its commands import
`lerobot_policy_tactus` by themselves where the package is installed; elsewhere they are told to look here, with
--policy.discover_packages_path=tactus.runtime.lerobot_policy.
"""
