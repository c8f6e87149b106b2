"""LIBERO's assets, made of shapes that Tactus generates itself."""
