"""Plain HTTP targets: hosts that a session may reach through the proxy, recorded and passed on as they are."""
