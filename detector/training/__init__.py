"""The Keras loop and its settings; nothing else trains."""
