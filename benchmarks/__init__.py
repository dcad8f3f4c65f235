"""Quality and speed, measured beside simple and well-known peers."""
