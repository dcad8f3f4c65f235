"""Scoring on Spark: the rows, numbers and flags of ``detector score``, on more machines than one.

What executors run are small frozen dataclasses that are called with Arrow batches; all else runs in the driver.
"""
