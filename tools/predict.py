"""The command `resdet predict`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
