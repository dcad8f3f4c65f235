"""Rows in, scores out: one core for tables and one for series, and the jobs that run them."""
