"""Narrows: the one channel through which every action of an AI coding agent passes."""

__version__ = "0.1.0"
