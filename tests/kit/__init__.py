"""The test kit of the data path: a whole gateway in one loop, a scripted origin, raw clients, the record read back."""

from tests.kit.client import Client, Response, Signer
from tests.kit.origin import Conn, Origin, Received, plain
from tests.kit.record import Recorded, exchanges
from tests.kit.world import OTHER_SESSION, REAL, SESSION, World, drive, resident_bytes, scenario, world

__all__ = [
    "OTHER_SESSION", "REAL", "SESSION", "Client", "Conn", "Origin", "Received", "Recorded", "Response", "Signer",
    "World", "drive", "exchanges", "plain", "resident_bytes", "scenario", "world",
]  # fmt: skip
