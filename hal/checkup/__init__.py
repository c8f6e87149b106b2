"""What is there, how well it works, and what to do about it: measured, then judged. Nothing moves, no torque changes.

Measuring gives facts, plain data; judging turns facts into findings and touches nothing.
"""
