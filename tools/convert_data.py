"""The command `resdet convert-data`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["convert-data", *sys.argv[1:]]))
