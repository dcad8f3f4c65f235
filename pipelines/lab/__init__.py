"""The encoders' comparison as a command, with its pictures."""
