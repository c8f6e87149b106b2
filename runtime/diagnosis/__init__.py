"""Why does it succeed there and fail here: traces of two programs compared, and what explains the difference."""
