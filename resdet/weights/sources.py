"""Finds weights: a file, torchvision's weights by name, or timm's default weights.

Downloads are the libraries' own files in their own caches. Without a network, a one-line error within a second names
the required file and the folder for it.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from resdet.errors import UserError, did_you_mean
from resdet.files import whole_file
from resdet.version import __version__
from resdet.weights.contract import WeightContract

if TYPE_CHECKING:
    from timm.models import PretrainedCfg
    from torchvision.models import WeightsEnum

CONNECT_SECONDS = 0.8  # seconds to find out whether there is a network
STALL_SECONDS = 10.0  # seconds without data after which a download has failed
HUGGING_FACE = "https://huggingface.co"
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")  # resnet50-0676ba61.pth

BOTTLENECK = re.compile(r"resnet(50|101|152)|resnext|wide_resnet")  # only these have a stride whose place can differ
NORMED = re.compile(r"(wide_)?resne(x)?t|vgg\d+_bn")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Source:
    """A file on this machine, and the contract that its publisher states (None: unknown)."""

    path: Path
    contract: WeightContract | None


def resolve(spec: str, architecture: str) -> Source:
    """The file of `spec` for a backbone of this architecture, downloaded if it is not in the cache.

    Args:
        spec: a path; a torchvision name (IMAGENET1K_V1, DEFAULT, ...); or `timm` for a backbone timm/<model>.
        architecture: a backbone's name in a config, resnet50 or timm/convnext_tiny.

    Raises UserError for an unknown name, a missing file, a file whose checksum differs from the published one.
    """
    if _is_path(spec):
        path = Path(spec).expanduser()
        if not path.is_file():
            raise UserError(f"model.backbone.weights={spec}: no such file")
        return Source(path, timm_contract(architecture) if architecture.startswith("timm/") else None)
    if architecture.startswith("timm/"):
        if spec not in ("timm", "DEFAULT"):
            raise UserError(f"model.backbone.weights={spec}: {architecture} takes 'timm' (its own weights) or a file")
        return _timm(architecture)
    return _torchvision(spec, architecture)


def _is_path(spec: str) -> bool:
    return "/" in spec or "\\" in spec or Path(spec).suffix in (".pth", ".pt", ".pkl", ".safetensors", ".bin")


def _torchvision(spec: str, architecture: str) -> Source:
    import torchvision

    try:
        names = torchvision.models.get_model_weights(architecture)
    except ValueError as error:
        raise UserError(
            f"model.backbone.weights={spec}: there are no published weights by name for {architecture}; give a file"
        ) from error
    if spec not in names.__members__:
        raise UserError(
            f"model.backbone.weights={spec} is not known for {architecture}{_meant(spec, names.__members__)}"
        )
    return _published(names[spec], architecture)


def named_weights(name: str) -> Source:
    """The file of torchvision weights by their full name, FasterRCNN_ResNet50_FPN_Weights.COCO_V1.

    A detector's contract has torchvision's list of categories as class names, background and unused ones among them.
    """
    from torchvision.models import get_weight

    try:
        weights = get_weight(name)
    except (ValueError, KeyError) as error:
        raise UserError(f"{name}: torchvision has no weights of this name") from error
    return _published(weights, None)


def _published(weights: WeightsEnum, architecture: str | None) -> Source:
    preset = weights.transforms()  # torchvision normalizes images in 0 .. 1; its detectors do so inside the model
    mean, std = getattr(preset, "mean", IMAGENET_MEAN), getattr(preset, "std", IMAGENET_STD)
    categories = None if hasattr(preset, "mean") else tuple(weights.meta["categories"])
    contract = WeightContract(
        pixel_mean=tuple(255.0 * value for value in mean),  # pyright: ignore[reportArgumentType]
        pixel_std=tuple(255.0 * value for value in std),  # pyright: ignore[reportArgumentType]
        stride_in_1x1=False if BOTTLENECK.match(architecture or "") else None,
        bn_eps=1e-5 if NORMED.match(architecture or "") else None,
        class_names=categories,
        architecture=architecture,
        source=f"torchvision {weights}",
    )
    return Source(fetched(weights.url, Path(torch.hub.get_dir()) / "checkpoints"), contract)


def coco_names() -> list[str]:
    """COCO's 90 category ids in their order, "N/A" for the ten that no object has."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    return list(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:])


IMAGENET_CLASSES = 1000


def imagenet_synsets() -> tuple[str, ...]:
    """The synsets of ImageNet's 1000 classes in the order of all published classifiers, which is sorted."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def _meant(spec: str, names: Iterable[str]) -> str:
    return did_you_mean(spec.rpartition(".")[2], names) + "; or a path to a file"


def _timm(architecture: str) -> Source:
    published, contract = _timm_configuration(architecture), timm_contract(architecture)
    if published.hf_hub_id:
        return Source(_from_hugging_face(published.hf_hub_id, published.hf_hub_filename), contract)
    if isinstance(published.url, str) and published.url:
        return Source(fetched(published.url, Path(torch.hub.get_dir()) / "checkpoints"), contract)
    raise UserError(f"model.backbone.weights=timm: nobody has published weights of {architecture}; give a file")


def timm_contract(architecture: str) -> WeightContract:
    """timm's own statement of how the images of timm/<model> are normalized."""
    published = _timm_configuration(architecture)
    return WeightContract(
        pixel_mean=tuple(255.0 * value for value in published.mean),  # pyright: ignore[reportArgumentType]
        pixel_std=tuple(255.0 * value for value in published.std),  # pyright: ignore[reportArgumentType]
        architecture=architecture,
        source=f"timm {published.hf_hub_id or architecture.removeprefix('timm/')}",
    )


def _timm_configuration(architecture: str) -> PretrainedCfg:
    import timm

    name = architecture.removeprefix("timm/")
    known = timm.is_model(name.partition(".")[0])
    published = timm.get_pretrained_cfg(name) if known else None
    if published is None:
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=1)
        raise UserError(
            f"{architecture}: timm has no such model or tag{f'; did you mean {near[0]!r}?' if near else ''}"
        )
    return published


def _from_hugging_face(repository: str, filename: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    names = (filename,) if filename else TIMM_FILES
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    wanted = f"{repository}/{names[0]}"
    remedy = f"fetch {HUGGING_FACE}/{repository}/resolve/main/{names[0]} and give its path as model.backbone.weights"
    endpoint = os.environ.get("HF_ENDPOINT", HUGGING_FACE)
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on") or not reachable(endpoint):
        raise UserError(f"{wanted} is not in the Hugging Face cache and {endpoint} cannot be reached; {remedy}")
    for name in names:
        if huggingface_hub.file_exists(repository, name):
            try:
                return Path(huggingface_hub.hf_hub_download(repository, name, etag_timeout=STALL_SECONDS))
            except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
                raise UserError(f"{wanted}: the download failed ({str(error)[:120]!a}); {remedy}") from error
    raise UserError(f"{wanted}: {endpoint}/{repository} has none of {', '.join(names)}")


def fetched(url: str, folder: Path) -> Path:
    """The cached file of this address, if its sha256 agrees with its name; otherwise it is downloaded into
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
        raise UserError(f"{path}: damaged or another file, its sha256 begins with {wrong}; delete it to fetch it again")
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


def open_address(url: str, *, timeout: float, handlers: Sequence[Any] = ()) -> Any:
    """What urllib answers for an http or https address; an https one may redirect to another https address alone.

    `handlers` are further urllib handlers. Raises UserError for another redirect, and OSError or HTTPException.
    """
    secure = (HttpsOnly,) if urllib.parse.urlsplit(url).scheme == "https" else ()
    request = urllib.request.Request(url, headers={"User-Agent": f"resdet/{__version__}"})  # noqa: S310  # http or https
    return urllib.request.build_opener(*secure, *handlers).open(request, timeout=timeout)


def download(
    url: str, path: Path, *, remedy: str, handlers: tuple[urllib.request.BaseHandler | Callable[[], Any], ...] = ()
) -> None:
    """Fetches over https, checks the sha256 in the file name, and only then moves the file to its final name.

    `handlers` are further urllib handlers. Raises UserError, whose message ends with `remedy`, for a failure; no
    partial file remains.
    """
    if urllib.parse.urlsplit(url).scheme != "https":
        raise UserError(f"{url}: refused, weights are fetched over https only; {remedy}")
    try:
        with whole_file(path) as part:
            with open_address(url, timeout=STALL_SECONDS, handlers=handlers) as answer, part.open("wb") as file:
                shutil.copyfileobj(answer, file)
            if (wrong := _wrong_hash(part, path.name)) is not None:
                raise UserError(f"{url}: what arrived has the sha256 {wrong}, not the one in its name; {remedy}")
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise UserError(f"{url}: the download failed ({error}); {remedy}") from error


def _wrong_hash(path: Path, name: str) -> str | None:
    """The beginning of the file's sha256 if it differs from the one in the name."""
    promised = HASH_IN_NAME.search(name)
    if promised is None:
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest.startswith(promised[1]) else digest[: len(promised[1])]
