"""What our reports share: the page that they are, how their figures look, tables as CSV."""
