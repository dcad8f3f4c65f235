"""What people answer to alerts, by link or by command."""
