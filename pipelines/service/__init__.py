"""The service: jobs on a schedule, one instance at a time, and what it tells over HTTP."""
