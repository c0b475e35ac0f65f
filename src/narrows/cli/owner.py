"""The local owner: the principal of the embedded, single-user mode."""

from __future__ import annotations

import os
import pwd

from narrows.core.values import Principal


def local_owner() -> Principal:
    """The user of this process, by the operating system's word (`local` is the issuer), not by a variable."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid-{uid}"  # a container's user without an entry
    return Principal(name=name, kind="user", issuer="local", groups=("owner",))
