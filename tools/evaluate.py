"""The command `resdet evaluate`, as a script (torchrun needs a path)."""

import sys

from resdet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
