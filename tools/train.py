"""The command `resdet train`, as a script (torchrun needs a path)."""

import sys

from resdet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
