"""Tests of services on disk and of their scripts as real processes."""
