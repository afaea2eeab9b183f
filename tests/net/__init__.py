"""Real nodes in network namespaces."""
