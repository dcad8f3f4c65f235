"""Places where tests let a process die."""
