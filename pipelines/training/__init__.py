"""Train, review, compare, promote."""
