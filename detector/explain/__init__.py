"""Why a row or a step is flagged: one reason, whatever detector gives it."""
