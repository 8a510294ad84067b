"""Look inside nets: see resdet/cli/probe.py."""

import sys

from resdet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["probe", *sys.argv[1:]]))
