"""Model APIs: what goes up, what is said, by whom and at what cost."""
