"""Serve a detector over HTTP: an image in a request, objects as JSON or a drawing as the answer.

CHECKPOINT is what `resdet predict` takes. Requests that come together are predicted together. POST /predict takes the
bytes of an image and answers JSON, POST /draw answers a JPEG; GET / is a page to try it, /openapi.json the description,
/health and /metrics (Prometheus) are for those who watch it. The service stops after the requests that are inside, on
Ctrl-C or SIGTERM. It knows no users and no https: a proxy in front of it is for that.

  resdet serve runs/quickstart
  resdet serve maskrcnn_resnet50_fpn_v2 --host 0.0.0.0 --port 80 --batch 16
  curl --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?score=0.5&class=circle'
"""

from __future__ import annotations

import argparse
from pathlib import Path

from resdet.cli.inputs import CHECKPOINT, OVERRIDES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help=CHECKPOINT)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen at (default: 127.0.0.1, which this machine alone reaches)",
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port to listen at (default: 8000; 0: any free one)"
    )
    parser.add_argument(
        "--batch", type=int, default=8, metavar="N", help="most images that are predicted together (default: 8)"
    )
    parser.add_argument(
        "--wait", type=float, default=5.0, metavar="MS", help="milliseconds an image waits for others (default: 5)"
    )
    parser.add_argument(
        "--places",
        type=int,
        default=32,
        metavar="N",
        help="most requests at a time; further ones are answered 503 (default: 32)",
    )
    parser.add_argument(
        "--max-bytes", type=int, default=20_000_000, metavar="N", help="largest request in bytes (default: 20e6)"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=16_000_000, metavar="N", help="largest image in pixels (default: 16e6)"
    )


def run(args: argparse.Namespace) -> int:
    """Serves until a signal. Raises UserError for a user's mistake."""
    from resdet.errors import UserError

    for name in ("batch", "places", "max_bytes", "max_pixels"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)} must be at least 1")
    if not (0 <= args.wait <= 10_000 and 0 <= args.port <= 65535):
        raise UserError(f"--wait {args.wait:g} --port {args.port}: give up to 10000 milliseconds and a port to 65535")
    from resdet.predict.load import load
    from resdet.serving.run import serve
    from resdet.text import printable

    detector = load(args.checkpoint, overrides=args.overrides)
    assert detector.origin is not None
    for line in detector.origin.remarks:
        print(printable(f"warning: {line}"))
    serve(
        detector,
        host=args.host,
        port=args.port,
        largest_batch=args.batch,
        patience=args.wait / 1000,
        places=args.places,
        most_bytes=args.max_bytes,
        most_pixels=args.max_pixels,
    )
    return 0
