"""Requests to addresses that may be hostile: where they may go, and how long they may take."""
