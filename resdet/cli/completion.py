"""Print a script that completes commands, options, configs and config keys in a shell.

The names are those of this version: write the script again after an update. docs/install.md says where it goes.

  resdet completion bash > ~/.local/share/bash-completion/completions/resdet
  resdet completion zsh > ~/.zfunc/_resdet
  resdet completion fish > ~/.config/fish/completions/resdet.fish
"""

from __future__ import annotations

import argparse
import re
from shlex import quote
from typing import Any

SHELLS = ("bash", "zsh", "fish")
# bash appends a space to a complete word, and a key is only complete with its value.
WITHOUT_SPACE = """
_resdet_without_space() {
  _shtab_resdet "$@"
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -F _resdet_without_space resdet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read the script")


def run(args: argparse.Namespace) -> int:
    """Prints; returns the exit code."""
    import shtab

    script = shtab.complete(all_commands(), shell=args.shell)
    if args.shell == "zsh":  # shtab 1.13 completes the first one of several arguments, such as configs and keys, only
        script = re.sub(r'^  "\(\*\)::?', '  "*:', script, flags=re.MULTILINE)
    print(script + (WITHOUT_SPACE if args.shell == "bash" else ""), end="")
    return 0


def all_commands() -> argparse.ArgumentParser:
    """One parser of all commands, whose arguments know what completes them."""
    import importlib

    from resdet.cli.main import COMMANDS, parser_of

    parser = argparse.ArgumentParser(prog="resdet", allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command")
    for name, module in COMMANDS.items():
        own = parser_of(name, importlib.import_module(module))
        summary = (own.description or "").replace("%", "%%")
        command = subparsers.add_parser(name, parents=[own], add_help=False, help=summary, description=summary)
        for action in command._actions:
            if action.choices is None and action.nargs != 0:
                action.complete = completed(name, action)  # pyright: ignore[reportAttributeAccessIssue]
    return parser


def completed(command: str, action: argparse.Action) -> Any:
    """What completes an argument, by the metavar that its command gave it."""
    import shtab

    metavar = " | ".join(action.metavar) if isinstance(action.metavar, tuple) else action.metavar or ""
    parts = sorted(set(metavar.split(" | ")))
    names = [name for part in parts for name in names_of(part, command)]
    if names:
        return named("_".join([*parts, command]), names, files=parts != ["key=value"] and parts != ["NAME"])
    return shtab.DIRECTORY if {"DIR", "FOLDER", "RUN"} & set(parts) else shtab.FILE


def names_of(part: str, command: str) -> list[str]:
    """The names that a part of a metavar stands for."""
    from resdet.config.declare import Key, walked
    from resdet.config.shipped import shipped_configs
    from resdet.config.tree import Config
    from resdet.engine.published import PUBLISHED

    if part == "CONFIG" or (part, command) == ("NAME", "configs"):
        return list(shipped_configs())
    if part == "CHECKPOINT" or (part, command) == ("NAME", "models"):
        return list(PUBLISHED)
    if part == "key=value":
        return [f"{declaration.path}=" for declaration in walked(Config) if isinstance(declaration, Key)]
    return []


def named(label: str, names: list[str], *, files: bool) -> dict[str, Any]:
    """Completion of names, and with `files` also of paths, by a function of each shell.

    shtab lets bash end folders with a slash if the name of that function has `_file`.
    """
    function = re.sub(r"\W", "_", f"_resdet_{label}") + ("_files" if files else "")
    keys, others = [name for name in names if name.endswith("=")], [name for name in names if not name.endswith("=")]
    lines = {
        "bash": [f"compgen -W {quote(' '.join(names))} -- $1", "compgen -f -- $1"],
        "zsh": [f"compadd -S '' -- {' '.join(keys)}", f"compadd -- {' '.join(others)}", "_files"],
        "fish": [f"string split ' ' -- {quote(' '.join(names))}", "__fish_complete_path (commandline -ct)"],
    }
    frames = {"bash": ("{}() {{", "}"), "zsh": ("{}() {{", "}"), "fish": ("function {}", "end")}
    preamble = {
        shell: "\n".join([frame[0].format(function), *(lines[shell] if files else lines[shell][:-1]), frame[1]])
        for shell, frame in frames.items()
    }
    return {"bash": function, "zsh": function, "fish": f"({function})", "preamble": preamble}
