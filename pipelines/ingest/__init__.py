"""What has come in since the last time, and how far it was scored: a folder that grows, or a table that does."""
