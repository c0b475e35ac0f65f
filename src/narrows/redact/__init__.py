"""Finds credentials and personal data in bytes, and masks them. Pure: knows `core` only."""
