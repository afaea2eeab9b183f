"""The tests of Koi."""
