"""Somebody in a person's place, where nobody is: in simulation, and where results must repeat."""
