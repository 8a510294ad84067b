"""The HTTP service: an image in the body of a request, objects or a drawing as the answer."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from jaxtyping import UInt8
from PIL import Image
from starlette.exceptions import HTTPException as AnyHttpError
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from resdet.data.images.decode import FORMATS, ImageError, decode_image
from resdet.data.images.orientation import PILLOW_ERRORS
from resdet.errors import UserError, did_you_mean
from resdet.predict.extras import json_of_an_image
from resdet.predict.prediction import Prediction
from resdet.serving.batching import Batcher, Full, Places
from resdet.serving.counts import Counts
from resdet.text import printable
from resdet.version import __version__

PAGE = Path(__file__).parent / "page.html"
PARAMETERS = ("score", "class", "max")
KNOWN = ("/", "/predict", "/draw", "/health", "/metrics", "/openapi.json")
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            f"image/{kind}": {"schema": {"type": "string", "format": "binary"}} for kind in ("jpeg", "png", "webp")
        },
    }
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    408: {"description": "the body did not arrive in time"},
    413: {"description": "too many bytes"},
    422: {"description": "no image, too many pixels, or a parameter that cannot be meant"},
    503: {"description": "all places are taken; send it again after the seconds of Retry-After"},
}


@runtime_checkable
class Detector(Protocol):
    """What the service needs of a Predictor."""

    class_names: tuple[str, ...]

    def __call__(self, images: list[UInt8[np.ndarray, "_ _ 3"]], /) -> list[Prediction]: ...


@dataclass(frozen=True)
class Limits:
    """What a request may be: bytes and pixels of an image, seconds for its arrival; and how many may be inside."""

    most_bytes: int = 20_000_000
    most_pixels: int = 16_000_000
    seconds: float = 30.0
    places: int = 32
    largest_batch: int = 8
    patience: float = 0.005  # seconds that an image waits for others


class Service:
    """The detector behind the queue, and the reading of requests."""

    def __init__(self, detector: Detector, limits: Limits) -> None:
        self.detector, self.limits = detector, limits
        self.counts, self.places = Counts(), Places(limits.places)
        self.batcher: Batcher[UInt8[np.ndarray, "_ _ 3"], Prediction] = Batcher(
            self._predict, largest=limits.largest_batch, patience=limits.patience
        )

    async def predicted(self, request: Request, score: float, classes: list[str] | None, most: int) -> Prediction:
        """The objects in the image of a request. Raises HTTPException for what is no image of permitted size."""
        if unknown := sorted(set(request.query_params) - set(PARAMETERS)):
            raise HTTPException(422, printable(f"no parameter {unknown[0]!r}{did_you_mean(unknown[0], PARAMETERS)}"))
        try:
            with self.places:
                data = await self._body(request)
                image = await asyncio.to_thread(self._decoded, data)
                found = await asyncio.wrap_future(self.batcher.add(image))
                return found.chosen(score=score, classes=classes, most=most)
        except Full:
            raise HTTPException(503, "all places are taken, send it again", {"Retry-After": "1"}) from None
        except UserError as error:  # of the image, and of the name of a class
            raise HTTPException(422, printable(str(error))) from None

    def _predict(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Prediction]:
        return self.detector(list(images))

    async def _body(self, request: Request) -> bytes:
        """The bytes of the body, which are counted as they arrive: a header may be wrong, or missing."""
        most = self.limits.most_bytes
        too_many = HTTPException(413, f"has more than {most} bytes; send a smaller image")
        if int(request.headers.get("content-length", "0")) > most:
            raise too_many
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise too_many
                    parts.append(part)
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {self.limits.seconds:g} seconds") from None
        except ClientDisconnect:  # nobody reads the answer, but it is counted
            raise HTTPException(400, "the connection ended within the body") from None
        return b"".join(parts)

    def _decoded(self, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
        if not data:
            raise ImageError("the body: is empty; send the bytes of an image")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as header:
                pixels = header.width * header.height
        except (*PILLOW_ERRORS, Image.DecompressionBombError, Image.DecompressionBombWarning):
            pixels = 0  # the decoder says what is wrong
        if pixels > self.limits.most_pixels:
            raise ImageError(f"the body: has {pixels} pixels, more than {self.limits.most_pixels}; downscale it")
        return decode_image(data, "the body", sixteen_bit="auto")


Score = Annotated[float, Query(ge=0, le=1, description="smallest score of an object")]
Classes = Annotated[list[str] | None, Query(alias="class", description="only objects of this class; may be repeated")]
Most = Annotated[int, Query(alias="max", ge=1, le=1000, description="at most so many objects, the best")]


def build_app(detector: Detector, *, name: str, limits: Limits = Limits()) -> FastAPI:  # frozen
    """The application. `name` says in /health which detector it is."""
    service = Service(detector, limits)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.close)

    # FastAPI's own pages load scripts from another host; the page at / needs none.
    app = FastAPI(title="resdet", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_exception_handler(AnyHttpError, _problem)

    @app.middleware("http")
    async def count(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        start, status = time.monotonic(), 500
        try:
            answer = await proceed(request)
            status = answer.status_code
            return answer
        finally:
            path = request.url.path if request.url.path in KNOWN else "other"
            service.counts.add(path, status, time.monotonic() - start)

    @app.post("/predict", openapi_extra=IMAGE_BODY, responses=ANSWERS)
    async def predict(request: Request, score: Score = 0.5, classes: Classes = None, most: Most = 100) -> Response:
        """The objects in an image, best first: class, category_id, score, box (x1, y1, x2, y2) and mask."""
        found = await service.predicted(request, score, classes, most)
        return Response(next(json_of_an_image(found)), media_type="application/json")

    @app.post("/draw", openapi_extra=IMAGE_BODY, responses={**ANSWERS, 200: {"content": {"image/jpeg": {}}}})
    async def draw(request: Request, score: Score = 0.5, classes: Classes = None, most: Most = 100) -> Response:
        """The image with its objects drawn, as a JPEG."""
        found = await service.predicted(request, score, classes, most)
        return Response(await asyncio.to_thread(partial(_jpeg, found)), media_type="image/jpeg")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the service answers, its detector and limits."""
        most = {"bytes": limits.most_bytes, "pixels": limits.most_pixels, "requests at a time": limits.places}
        return {"status": "ok", "detector": name, "classes": list(detector.class_names), "limits": most}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        """Counts and times for Prometheus."""
        return service.counts.text(service.batcher.sizes)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        """A page to try the service, and what the requests are."""
        return PAGE.read_text(encoding="utf-8")

    return app


async def _problem(_: Request, error: Exception) -> JSONResponse:
    """The answer for a refused request, of any kind."""
    assert isinstance(error, AnyHttpError)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


def _jpeg(found: Prediction) -> bytes:
    data = io.BytesIO()
    found.draw(score=0.0).save(data, "JPEG", quality=90)
    return data.getvalue()
