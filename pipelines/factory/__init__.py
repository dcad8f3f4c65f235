"""From the configuration to a detector, its policy, its training rows and their labels."""
