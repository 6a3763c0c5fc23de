"""The command `tfnas`. Each subcommand is a module here with HELP, add_arguments and run; `_` marks helpers."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

from tfnas.cli._console import check_outputs
from tfnas.jobs.errors import UserError, explain_disk, hide_secrets
from tfnas.jobs.extras import explain_missing
from tfnas.jobs.user import provide_for_user


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; a user's mistake is one line on stderr and exit code 2."""
    hide_secrets()
    provide_for_user()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # now, while a closed pipe can still be told from a bug
    except BrokenPipeError:  # as `| head` leaves it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # the exit code of a program that SIGPIPE ended


def _run(arguments: Sequence[str] | None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        check_outputs(options, options.command)
        return int(options.run(options) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except ModuleNotFoundError as error:
        if (missing := explain_missing(error)) is None:
            raise
        print(f"error: {options.command}: {missing}", file=sys.stderr)
        return 2
    except OSError as error:
        if (reason := explain_disk(error)) is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tfnas", description="Find the best image classifier for a latency budget.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for info in pkgutil.iter_modules(__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{info.name}")
        name = getattr(module, "NAME", info.name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run, command=name)
    return parser
