"""Each command against a real cluster."""
