"""A model server that says what its script says, in the forms of four model APIs, over real sockets.

For the demonstration, the measurements and the suite: a real agent asks it, gets told to run a command, runs it, shows
the result and is told that it is done. Nothing here thinks.
"""

from demo.model.script import Call, Script, Turn
from demo.model.server import ModelServer, Received
from demo.model.thread import served

__all__ = ["Call", "ModelServer", "Received", "Script", "Turn", "served"]
