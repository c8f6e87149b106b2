"""Hardware abstraction: the Robot interface, and the backends that implement it. Imports nothing of ours."""
