"""Moving bodies: from the client up, from the target down, each byte recorded before it goes on.

Part of the path (`path.py` says when, these modules how). Nothing here decides.
"""
