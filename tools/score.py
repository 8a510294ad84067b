"""The command `resdet score`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["score", *sys.argv[1:]]))
