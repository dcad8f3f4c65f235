"""Flagged rows → events of one entity → what is worth an alert, and what a silence holds back."""
