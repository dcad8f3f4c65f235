"""The whole way on simulated data: one tour for payments, one for machines."""
