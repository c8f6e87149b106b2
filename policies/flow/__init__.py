"""A small flow-matching policy on vectors: state and object poses in, action chunks out."""
