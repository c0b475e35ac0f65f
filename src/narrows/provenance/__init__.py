"""Why something happened: links between the exchanges of one session, with the strength of their evidence. Pure."""
