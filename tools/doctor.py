"""The command `resdet doctor`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["doctor", *sys.argv[1:]]))
