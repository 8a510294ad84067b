"""The command `resdet configs`, as a script for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["configs", *sys.argv[1:]]))
