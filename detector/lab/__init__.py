"""Encoders side by side: reconstruction, generalisation, speed, memory, robustness to damaged data."""
