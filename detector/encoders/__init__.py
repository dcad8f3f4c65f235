"""Autoencoders, one file an architecture. Keras is imported only where a network is built or trained."""
