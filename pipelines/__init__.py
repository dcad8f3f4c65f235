"""The jobs and the service: read, call the library, write, tell."""
