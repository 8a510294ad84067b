"""The command `resdet benchmark`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
