"""Rules beside the model: what people write is read, checked against the columns, and run over frames."""
