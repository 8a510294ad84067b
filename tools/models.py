"""The command `resdet models`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["models", *sys.argv[1:]]))
