"""Whole clusters of the real core in one process, on a virtual clock."""
