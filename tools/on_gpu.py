"""Measure resdet on a GPU in at most eight minutes: tests, speed against torchvision, waits, memory, a profile.

Writes DIR/gpu.json and DIR/gpu.md after every value, the most valuable first, and the logs beside them.

examples:
  python tools/on_gpu.py --out measured
  python tools/on_gpu.py --out measured --only compiled --seconds 240
  python tools/on_gpu.py --out /tmp/proof --device cpu --small --seconds 1800
  python tools/on_gpu.py --page measured/gpu.json        # copies the measurements into docs/gpu.json, makes docs/gpu.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="DIR", help="measure, and write into this folder")
    what.add_argument("--page", type=Path, metavar="FILE", help="make docs/gpu.md from these measurements")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="the same code at a tiny size")
    parser.add_argument("--seconds", type=float, default=450, help="for all parts (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="measure these parts alone")
    args = parser.parse_args()

    from resdet.analysis.gpu.page import write_page
    from resdet.analysis.gpu.plan import measure
    from resdet.errors import UserError

    try:
        if args.page:
            write_page(args.page, ROOT / "docs")
            return 0
        scale = "small" if args.small else "full"
        return 0 if measure(args.out, device=args.device, scale=scale, seconds=args.seconds, only=args.only) else 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
