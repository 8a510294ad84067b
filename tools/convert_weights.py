"""The command `resdet convert-weights`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["convert-weights", *sys.argv[1:]]))
