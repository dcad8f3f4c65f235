"""The detector for tables: fit, score rows, say which features are to blame."""
