"""The API: what programs ask of the service under ``/v1``, with keys, limits and errors that name the field."""
