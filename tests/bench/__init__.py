"""Measurements: one command, a table and JSON."""
