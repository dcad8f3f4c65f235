"""Where scores and rows that cannot be used are written."""
