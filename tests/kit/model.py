"""The scripted model server as tests use it: in their own loop, in a thread, or as a program.

It lives in `demo.model`, because the demonstration and the measurements use it too. `async with
ModelServer(script).run() as model` serves in the test's loop; `served(script)` serves from a thread.
"""

from demo.model import Call, ModelServer, Received, Script, Turn, served
from demo.model.program import main

__all__ = ["Call", "ModelServer", "Received", "Script", "Turn", "served"]

if __name__ == "__main__":
    main()
