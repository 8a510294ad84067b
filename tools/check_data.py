"""`resdet check-data` for a checkout that is not installed."""

import sys

from resdet.cli.main import main

sys.exit(main(["check-data", *sys.argv[1:]]))
