"""Deciding what may pass. Pure: facts in, decision out."""
