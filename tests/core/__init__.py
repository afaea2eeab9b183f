"""Tests of the pure rules: tables and exhaustive small spaces."""
