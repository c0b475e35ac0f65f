"""Entry of the command line: fast commands first, errors in three parts, exit codes.

Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 the gateway could not be reached. `narrows run` gives
its command's own.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as a checker sees it; `typing` alone would cost a hook 8 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, NO, WRONG_USE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130

_FAST = {"aws-credentials": "narrows.cli.aws_credentials", "hook": "narrows.cli.hook"}
"""Commands that agents start often: each is a module with `main(arguments) -> int` that imports almost
nothing. They are dispatched before the command-line library is loaded."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Never raises but for bugs."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in _FAST and "--help" not in given:
            from importlib import import_module

            return int(import_module(_FAST[given[0]]).main(given[1:]))
        return _dispatch(given)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _pipe_closed()
    except Exception as error:
        from narrows.core.errors import NarrowsError

        if not isinstance(error, NarrowsError):
            raise
        print_error(error)
        return exit_code(error)


def _dispatch(arguments: list[str]) -> int:
    import typer

    from narrows.cli.app import command
    from narrows.cli.context import at_end

    root = command()
    try:
        # Not the library's own `main`, which turns a closed pipe into an exit code of its own.
        with root.make_context("narrows", arguments) as context:
            root.invoke(context)
        sys.stdout.flush()
    except typer.Exit as ended:
        sys.stdout.flush()
        return ended.exit_code
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        if show is not None:
            show()
        else:
            print(f"narrows: {error}", file=sys.stderr)
        return getattr(error, "exit_code", WRONG_USE)
    except typer.Abort:
        return INTERRUPTED
    finally:
        at_end.close()
    return DONE


def exit_code(error: Exception) -> int:
    """The exit code that tells of an error."""
    from narrows.cli.local import UnreachableError
    from narrows.core.errors import ConfigError

    if isinstance(error, UnreachableError):
        return UNREACHABLE
    if isinstance(error, ConfigError):
        return WRONG_USE
    if getattr(error, "status", 0) in (400, 413, 422) or getattr(error, "code", "") == "ambiguous_id":
        return WRONG_USE
    return NO


def print_error(error: Exception) -> None:
    """Print what happened, why, and what to do next, on standard error. Texts are escaped: they may quote."""
    from narrows.cli.render import paint, safe

    what, why, hint = (safe(getattr(error, part, "")) for part in ("what", "why", "hint"))
    err = sys.stderr
    print(paint("narrows: ", "red", err) + paint(what, "bold", err), file=err)
    if why:
        print(f"  why:  {why}", file=err)
    if hint:
        print(f"  next: {hint}", file=err)


def _pipe_closed() -> int:
    """The reader of our output left (`| head`): no error of ours. Nothing may be written at exit either."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
