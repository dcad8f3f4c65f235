"""Whether recent rows still look like those learnt from."""
