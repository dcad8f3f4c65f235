"""The models kept on this machine: which serves, which is on trial, and who decides that."""
