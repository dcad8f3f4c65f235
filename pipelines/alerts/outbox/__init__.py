"""Alerts and their deliveries, written in the transaction of the scores they are about."""
