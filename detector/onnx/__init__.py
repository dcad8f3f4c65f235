"""Graphs: written as text, run by ONNX Runtime, kept as parts of a bundle."""
