"""Requests that the gateway answers itself: agents' events, leases for a process, traces."""
