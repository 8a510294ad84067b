"""The command `resdet compare`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
