"""Tests of what travels: bytes, seals, sockets."""
