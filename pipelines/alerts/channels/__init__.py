"""Where alerts go: one file a kind of target."""
