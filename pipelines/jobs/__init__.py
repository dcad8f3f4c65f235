"""The jobs that the service runs, what each is given, and how one runs as a command of its own."""
