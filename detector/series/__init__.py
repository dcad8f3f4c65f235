"""Readings → regular steps → segments → windows, and window errors back to rows."""
