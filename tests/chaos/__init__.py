"""A network that loses, repeats, swaps and delays what is sent over it, on purpose and by a seed."""
