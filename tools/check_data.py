"""The command `resdet check-data`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["check-data", *sys.argv[1:]]))
