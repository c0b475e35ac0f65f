"""Links between exchanges: from an effect back to the prompt that caused it, with the strength of the evidence."""
