"""The command `resdet export`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["export", *sys.argv[1:]]))
