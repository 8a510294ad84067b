"""The command `resdet push`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["push", *sys.argv[1:]]))
