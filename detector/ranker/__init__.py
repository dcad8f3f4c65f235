"""The supervised re-ranker: boosted trees that learn from labels and decide once they have proved better."""
