"""Opens and downloads addresses: over https, checked by the sum in a name; without a network the answer is quick."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import Any

from resdet.errors import UserError
from resdet.files import whole_file
from resdet.version import __version__

CONNECT_SECONDS = 0.8  # seconds to find out whether there is a network
STALL_SECONDS = 30.0  # seconds without data after which a download has failed
# The beginning of a checksum in a file's name: resnet50-0676ba61.pth, model_final_280758.pkl (of Detectron2's zoo).
SUMS = ((re.compile(r"-([0-9a-f]{8,64})\."), "sha256"), (re.compile(r"model_final_([0-9a-f]{6})\.pkl"), "md5"))


def fetched(url: str, folder: Path) -> Path:
    """The cached file of this address, if its sum agrees with its name; otherwise it is downloaded into
    the cache.
    """
    name = Path(urllib.parse.urlsplit(url).path).name
    path = folder / name
    if not path.is_file():
        remedy = f"fetch {url} elsewhere and put it at {path}"
        if not reachable(url):
            raise UserError(f"{name} is not in the cache and its host cannot be reached; {remedy}")
        folder.mkdir(parents=True, exist_ok=True)
        download(url, path, remedy=remedy)
    elif (wrong := _wrong_hash(path, name)) is not None:
        raise UserError(f"{path}: damaged or another file, its {wrong}; delete it to fetch it again")
    return path


def reachable(url: str, seconds: float = CONNECT_SECONDS) -> bool:
    """Whether the host (or its proxy) accepts a connection within `seconds`.

    The test runs in its own thread, because without a network the look-up of a name may take any time.
    """
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), timeout=seconds).close()
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """A redirect may change the host, but not the scheme."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme != "https":
            fp.close()
            raise UserError(f"{req.full_url}: refused, it redirects to {newurl[:120]!a}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_address(url: str, *, handlers: Sequence[Any] = ()) -> Any:
    """What urllib answers for an http or https address; an https one may redirect to another https address alone. A
    server that sends nothing for STALL_SECONDS has failed.

    `handlers` are further urllib handlers. Raises UserError for another redirect, and OSError or HTTPException.
    """
    secure = (HttpsOnly,) if urllib.parse.urlsplit(url).scheme == "https" else ()
    request = urllib.request.Request(url, headers={"User-Agent": f"resdet/{__version__}"})  # noqa: S310  # http or https
    return urllib.request.build_opener(*secure, *handlers).open(request, timeout=STALL_SECONDS)


def download(
    url: str, path: Path, *, remedy: str, handlers: tuple[urllib.request.BaseHandler | Callable[[], Any], ...] = ()
) -> None:
    """Fetches over https, checks the sum in the file name, and only then moves the file to its final name.

    `handlers` are further urllib handlers. Raises UserError, whose message ends with `remedy`, for a failure; no
    partial file remains.
    """
    if urllib.parse.urlsplit(url).scheme != "https":
        raise UserError(f"{url}: refused, weights are fetched over https only; {remedy}")
    try:
        with whole_file(path) as part:
            with open_address(url, handlers=handlers) as answer, part.open("wb") as file:
                shutil.copyfileobj(answer, file)
            if (wrong := _wrong_hash(part, path.name)) is not None:
                raise UserError(f"{url}: what arrived is another file, its {wrong}, not as in its name; {remedy}")
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise UserError(f"{url}: the download failed ({error}); {remedy}") from error


def _wrong_hash(path: Path, name: str) -> str | None:
    """`"sha256 begins with 0676ba61"`, if that differs from the beginning in the name."""
    for pattern, algorithm in SUMS:
        if (promised := pattern.search(name)) is not None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, algorithm).hexdigest()
            return None if digest.startswith(promised[1]) else f"{algorithm} begins with {digest[: len(promised[1])]}"
    return None
