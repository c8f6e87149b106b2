"""Robots around robots: disturbed, or attended by a person."""
