"""The detector for series of readings: fit, score whole series or a stream, say which sensor is at fault."""
