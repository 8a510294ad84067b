"""`python -m resdet` is the command `resdet`."""

import sys

from resdet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
