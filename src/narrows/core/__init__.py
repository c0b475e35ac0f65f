"""Values, errors and ports that every layer speaks. Pure: imports nothing of ours, no I/O, no clock."""
