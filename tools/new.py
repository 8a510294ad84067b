"""The command `resdet new`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["new", *sys.argv[1:]]))
