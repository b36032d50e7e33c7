"""The command line: `python -m mpqdm_core COMMAND ...`, a command for every step of the page.

Results go to standard output, as text or with `--json` as one JSON object; progress and errors go to standard
error. Ctrl-C stops at the next step and keeps what can be kept.

Exit codes: 0 done, 1 an error in one sentence, 2 wrong arguments, 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mpqdm_core.command_line import analysis, board, pictures, training
from mpqdm_core.command_line._console import Result, Stop
from mpqdm_core.errors import Cancelled, MpqdmError

FAILED, STOPPED = 1, 130
GROUPS = (analysis, training, pictures, board)


def make_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m mpqdm_core", description="Mixed-precision quantization of diffusion models."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add_commands(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code.

    Args:
        arguments: without the program's name; None takes those of the process.
    """
    asked = make_parser().parse_args(arguments)
    stop = Stop()
    before = signal.signal(signal.SIGINT, stop.on_signal)
    try:
        result: Result = asked.work(asked, stop.report(quiet=asked.quiet))
    except Cancelled:
        print("Stopped.", file=sys.stderr)
        return STOPPED
    except MpqdmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return FAILED
    finally:
        stop.close()
        signal.signal(signal.SIGINT, before)
    if result.shown:
        print(json.dumps(_finite(result.values), allow_nan=False) if asked.json else result.text)
    return result.exit_code


def _finite(value: Any) -> Any:
    """NaN and infinities as null: JSON has neither."""
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = ["main", "make_parser"]
