"""What `tactus doctor` finds out about arms, ports and cameras. Nothing moves, no torque changes.

measure_* and inspect_* touch the hardware and give facts, plain data; diagnose_* turn facts into findings.
"""
