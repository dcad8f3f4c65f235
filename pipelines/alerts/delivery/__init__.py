"""The worker that takes waiting alerts to their targets, again and again until they are taken."""
