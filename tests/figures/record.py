"""Keeps what a script counted, and writes it into docs/reliability.md.

python tests/figures/kills.py 20 | tee log; python tests/figures/record.py "tests/figures/kills.py 20" < log
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import reliability

SHOWN = re.compile(
    r"\d+ workers,|\d+ SIGTERMs|\d+ of \d+ mutants|survived:|power loss:|memory of|a real full disk|"
    r"(?:annotations|images|configs|weights|[A-Z]+): \d"
)
TESTS = re.compile(r"(?<=[^(]) \([\w/. ]*\.py\)$")  # of a mutant that survived


def main(command: str, said: str) -> None:
    """Replaces the figures of a command by the lines of its output that count something."""
    lines = [TESTS.sub("", line).replace("|", "/") for line in said.splitlines() if SHOWN.match(line)]
    if not lines:
        sys.exit("no line of the input counts anything")
    kept = json.loads(reliability.COUNTED.read_text()) if reliability.COUNTED.exists() else []
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    row = {"command": f"python {command}", "date": today, "counted": "; ".join(lines)}
    kept = [other for other in kept if other["command"] != row["command"]] + [row]
    kept.sort(key=lambda each: each["command"])
    _ = reliability.COUNTED.write_text(json.dumps(kept, indent=1) + "\n")
    _ = reliability.PAGE.write_text(reliability.with_figures(reliability.PAGE.read_text()))


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.read())
