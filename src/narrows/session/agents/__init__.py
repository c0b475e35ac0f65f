"""Agents' own reports (hooks): what six agents send, what they want to be answered, and what it means."""
