"""Why a row or a step is flagged: reasons, and how the risk is shared out among features."""
