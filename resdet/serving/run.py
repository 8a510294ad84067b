"""Runs the service until a signal."""

from __future__ import annotations

import socket
from typing import Any

from resdet.errors import UserError
from resdet.predict.predictor import Predictor
from resdet.text import printable

STOPPING = 60  # seconds for the requests that are inside


def serve(detector: Predictor, *, host: str, port: int, **limits: Any) -> None:
    """Listens, prints the address, and returns after SIGINT or SIGTERM, when the requests inside are answered.

    `limits` are those of `resdet.serving.app.Limits`. Raises UserError if the packages of the extra `serve` are
    missing, and for an address that is taken or not of this machine.
    """
    try:
        import uvicorn

        from resdet.serving.app import Limits, build_app
    except ModuleNotFoundError as missing:
        raise UserError(f"{missing.name} is not installed; pip install 'resdet[serve]'") from None
    bounds = Limits(**limits)
    detector.batch_size = bounds.largest_batch
    assert detector.origin is not None
    app = build_app(detector, name=printable(str(detector.origin.files[0])), limits=bounds)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=STOPPING, timeout_keep_alive=30)
    with _listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        print(f"serving at http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C stops it)", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot be listened at ({error.strerror}); give others") from None
