"""LIBERO's assets, made of shapes that Tactus generates itself, and robosuite's robot with fewer faces."""
