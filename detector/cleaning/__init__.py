"""Rows as they come → rows that can be used, and the others with the reason why not."""
