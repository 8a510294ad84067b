"""The command `resdet report`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["report", *sys.argv[1:]]))
