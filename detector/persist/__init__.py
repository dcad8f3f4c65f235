"""A detector on disk: ONNX, arrays and JSON with checksums, never a pickle."""
