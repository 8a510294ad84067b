"""A load test of a service on this machine: `resdet serve RUN` in one terminal, this in another.

python tools/serve_load.py http://127.0.0.1:8000 photos/*.jpg --requests 200 --clients 8 --process PID
"""

import argparse
import sys
from pathlib import Path

from resdet.serving.load import run_load


def resident(process: int) -> float:
    """Megabytes of memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--process", type=int, help="of the service, whose memory is printed before and after")
    args = parser.parse_args()
    images = [path.read_bytes() for path in args.images]
    before = resident(args.process) if args.process else 0.0
    load = run_load(args.address, images, requests=args.requests, clients=args.clients)
    print("\n".join(load.lines()))
    if args.process:
        print(f"memory of the service: {before:.0f} MB before, {resident(args.process):.0f} MB after")
    return 1 if load.lost else 0


if __name__ == "__main__":
    sys.exit(main())
