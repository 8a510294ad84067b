"""Images by address: over https alone, of limited size, within a limited time."""

from __future__ import annotations

import time
import urllib.error
import urllib.parse
from http.client import HTTPException
from typing import Any

import numpy as np
from jaxtyping import UInt8

from resdet.data.images.decode import ImageError, decode_image
from resdet.downloads import open_address, reachable
from resdet.errors import UserError
from resdet.text import shortened

LARGEST = 64 * 2**20  # bytes of an image
WHOLE_SECONDS = 60.0  # for all data
PART = 2**16  # bytes that are read at a time
HANDLERS: tuple[Any, ...] = ()  # further urllib handlers, for tests against a server on this machine


def is_address(given: object) -> bool:
    """Whether an image is given by its address, and not by a path."""
    return isinstance(given, str) and given.lower().startswith(("https://", "http://"))


def read_address(url: str, *, sixteen_bit: str = "error") -> UInt8[np.ndarray, "H W 3"]:
    """The image at an https address, decoded as a file is (`read_image`).

    Raises ImageError, in one line, for another scheme, also after a redirect, for more than LARGEST bytes, for a server
    that stalls or takes too long, and for what is no image.
    """
    return decode_image(fetched(url), url, sixteen_bit=sixteen_bit)


def fetched(url: str) -> bytes:
    """The bytes at an https address. Raises ImageError as `read_address`."""
    try:
        if urllib.parse.urlsplit(url).scheme.lower() != "https":
            raise ImageError(f"{url}: images are fetched over https only; give an https address, or a file")
        if not reachable(url):
            raise ImageError(f"{url}: the host cannot be reached; download the image elsewhere and give its path")
        with open_address(url, handlers=HANDLERS) as answer:
            return _read(answer, url)
    except ImageError:
        raise
    except UserError as error:  # of a redirect
        raise ImageError(str(error)) from None
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"{url}: cannot be fetched ({shortened(str(error), 120)}); give another address") from None
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        raise ImageError(
            f"{url}: cannot be fetched ({shortened(str(error), 120)}); download the image and give its path"
        ) from None


def _read(answer: Any, url: str) -> bytes:
    too_much = ImageError(f"{url}: has more than {LARGEST} bytes, too many for an image; give a smaller one")
    if int(answer.headers.get("Content-Length") or 0) > LARGEST:
        raise too_much
    end, parts, size = time.monotonic() + WHOLE_SECONDS, [], 0
    while part := answer.read1(PART):
        size += len(part)
        parts.append(part)
        if size > LARGEST:
            raise too_much
        if time.monotonic() > end:
            raise ImageError(f"{url}: took more than {WHOLE_SECONDS:g} s; download the image and give its path")
    if not parts:
        raise ImageError(f"{url}: is empty")
    return b"".join(parts)
