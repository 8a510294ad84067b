"""The `resdet` command: finds the subcommand, parses its arguments, and converts errors into exit codes.

Nothing here or at the top of a command's file imports torch, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from resdet.cli.help import HelpFormatter, listed, text_width
from resdet.engine.signals import EXIT_CODE, stopping
from resdet.errors import UserError, did_you_mean
from resdet.files import usable_paths
from resdet.plugins import load_plugins
from resdet.text import printable
from resdet.version import __version__

# Each file has a docstring (the first paragraph is the summary), add_arguments(parser) and run(args) -> exit code.
GROUPS = {
    "a detector of your own": {
        "check-data": "resdet.cli.check_data",
        "new": "resdet.cli.new",
        "train": "resdet.cli.train",
        "evaluate": "resdet.cli.evaluate",
        "report": "resdet.cli.report",
        "compare": "resdet.cli.compare",
    },
    "use a detector": {
        "predict": "resdet.cli.predict",
        "serve": "resdet.cli.serve",
        "export": "resdet.cli.export",
        "push": "resdet.cli.push",
    },
    "measure": {
        "score": "resdet.cli.score",
        "benchmark": "resdet.cli.benchmark",
        "probe": "resdet.cli.probe",
    },
    "convert": {
        "convert-data": "resdet.cli.convert_data",
        "convert-weights": "resdet.cli.convert_weights",
    },
    "find out": {
        "configs": "resdet.cli.configs",
        "models": "resdet.cli.models",
        "doctor": "resdet.cli.doctor",
        "completion": "resdet.cli.completion",
    },
}
COMMANDS = {name: module for group in GROUPS.values() for name, module in group.items()}
BEGINNING = """\
  resdet doctor                                     does everything work here
  resdet train quickstart --output runs/quickstart  a detector, within minutes
  resdet predict runs/quickstart photo.jpg          what it finds in a photo"""
# Those that build a model, read annotations or score, and so can run a user's own files.
WITH_PLUGINS = {
    "new", "train", "evaluate", "predict", "serve", "export", "push", "score", "benchmark", "compare", "probe",
    "report", "check-data", "convert-data",
}  # fmt: skip
DONE, FAILED, MISTAKE, STOPPED = 0, 1, 2, EXIT_CODE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; returns its exit code.

    0 done, 2 a user's mistake (one line on stderr), 143 stopped by a signal; any other exception is an error of resdet
    itself; it is not caught, so Python prints its traceback and exits with 1.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return DONE
    if arguments[0] == "--version":
        print(__version__)
        return DONE
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: {name!r} is not a command{did_you_mean(name, COMMANDS)}", file=sys.stderr)
        return MISTAKE
    command = importlib.import_module(COMMANDS[name])
    try:
        with stopping(), usable_paths():
            parsed = parser_of(name, command).parse_intermixed_args(rest)
            load_plugins(getattr(parsed, "plugin", ()))
            return command.run(parsed)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return STOPPED


def parser_of(name: str, command: ModuleType) -> argparse.ArgumentParser:
    """The parser of a command; its help text is the module's docstring."""
    details = (command.__doc__ or "").strip().partition("\n\n")[2]
    parser = argparse.ArgumentParser(
        prog=f"resdet {name}",
        description=_summary(command),
        epilog=details,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    if name in WITH_PLUGINS:
        parser.add_argument(
            "--plugin",
            action="append",
            default=[],
            metavar="FILE.py",
            help="run this Python file of yours first: it may add backbones, metrics, formats, ... to resdet's tables "
            "(docs/extending.md). The only option that runs code: name only files that you trust",
        )
    return parser


def overview() -> str:
    """The commands with their summaries, by what they are for."""
    first = max(map(len, COMMANDS))
    lines = ["usage: resdet COMMAND ...        resdet COMMAND --help says more", "", "to begin with:", BEGINNING]
    for title, group in GROUPS.items():
        summaries = {name: _summary(importlib.import_module(module)) for name, module in group.items()}
        lines += ["", f"{title}:", *listed(summaries, first, text_width())]
    return "\n".join(lines)


def _summary(command: ModuleType) -> str:
    """The first paragraph of a command's docstring, in one line."""
    return " ".join((command.__doc__ or "").strip().partition("\n\n")[0].split())


if __name__ == "__main__":
    sys.exit(main())
