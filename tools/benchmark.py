"""Time training and prediction: see resdet/cli/benchmark.py."""

import sys

from resdet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
