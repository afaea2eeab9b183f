"""Koi, a high-availability manager: keeps one instance of some software active on a small cluster."""

__version__ = "1.0.0"
