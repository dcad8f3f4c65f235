"""Point-in-time features in every job: typed rows, the engine, the state that moves with the service."""
