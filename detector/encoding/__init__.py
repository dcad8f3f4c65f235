"""Columns of any kind → the numbers that networks and forests take, and back."""
