"""The command `resdet serve`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["serve", *sys.argv[1:]]))
