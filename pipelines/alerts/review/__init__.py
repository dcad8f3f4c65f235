"""What people work through: the queue of alerts, and what they write beside one."""
