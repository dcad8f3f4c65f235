"""Whole detectors, which put the stages together: one folder for tables, one for series."""
