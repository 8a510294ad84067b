"""Published weights come over https, checked, into the libraries' caches; without a network the answer is quick."""

import hashlib
import io
import socket
import threading
import time
import urllib.request
import urllib.response
from http.client import HTTPMessage

import huggingface_hub
import pytest
import torch
from torchvision.models import ResNet50_Weights, VGG16_Weights

from resdet import downloads
from resdet.errors import UserError
from resdet.weights import sources

FILE = b"what the publisher released"
NAME = f"tiny-{hashlib.sha256(FILE).hexdigest()[:8]}.pth"
URL = f"https://weights.example/models/{NAME}"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch.hub's folder of weights, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture
def no_answer(monkeypatch):
    """A network that swallows everything: a connection attempt takes until the test is over."""
    over = threading.Event()

    def wait(*_arguments, **_options):
        _ = over.wait(120)
        raise OSError("timed out")

    monkeypatch.setattr(socket, "create_connection", wait)
    yield
    over.set()


def refusal(spec, architecture):
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        _ = sources.resolve(spec, architecture)
    assert time.monotonic() - began < 60  # half of what the network swallows; the promise is a second
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Https(urllib.request.HTTPSHandler):
    """A web server in memory: address -> (status, headers, body)."""

    def __init__(self, pages):
        super().__init__()
        self.pages = pages

    def https_open(self, req):  # pyright: ignore[reportIncompatibleMethodOverride]
        status, headers, body = self.pages[req.full_url]
        message = HTTPMessage()
        for name, value in headers.items():
            message[name] = value
        answer = urllib.response.addinfourl(io.BytesIO(body), message, req.full_url, status)
        answer.msg = "said so"  # pyright: ignore[reportAttributeAccessIssue]
        return answer


def download(folder, pages):
    downloads.download(URL, folder / NAME, remedy="put it there", handlers=(Https(pages),))
    return (folder / NAME).read_bytes()


def test_a_download_is_checked_and_put_in_place(tmp_path):
    assert download(tmp_path, {URL: (200, {}, FILE)}) == FILE
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


def test_a_redirect_to_https_is_followed(tmp_path):
    mirror = "https://mirror.example/file"
    pages = {URL: (302, {"Location": mirror}, b""), mirror: (200, {}, FILE)}
    assert download(tmp_path, pages) == FILE


@pytest.mark.parametrize("target", ["http://mirror.example/file", "ftp://mirror.example/file", "file:///etc/passwd"])
def test_a_redirect_away_from_https_is_refused(tmp_path, target):
    with pytest.raises(UserError, match=r"https|disallowed"):
        _ = download(tmp_path, {URL: (302, {"Location": target}, b"")})
    assert list(tmp_path.iterdir()) == []


def test_a_download_with_another_sha256_is_refused_and_removed(tmp_path):
    with pytest.raises(UserError, match=r"sha256 begins with [0-9a-f]{8}, not as in its name; put it there"):
        _ = download(tmp_path, {URL: (200, {}, b"something else")})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_page_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"the download failed .*404.*put it there"):
        _ = download(tmp_path, {URL: (404, {}, b"")})
    assert list(tmp_path.iterdir()) == []


def test_plain_http_is_refused(tmp_path):
    with pytest.raises(UserError, match="over https only"):
        downloads.download("http://weights.example/w.pth", tmp_path / "w.pth", remedy="put it there")


def test_a_cached_file_is_taken_when_its_sha256_is_right(tmp_path):
    _ = (tmp_path / NAME).write_bytes(FILE)
    assert downloads.fetched(URL, tmp_path) == tmp_path / NAME


def test_a_damaged_cached_file_is_refused(cache):
    file = cache / "resnet50-0676ba61.pth"
    _ = file.write_bytes(b"half of it")
    message = refusal("IMAGENET1K_V1", "resnet50")
    assert message.startswith(f"{file}: damaged or another file, its sha256 begins with ")


def test_without_a_network_the_line_says_what_to_put_where(cache, offline):
    message = refusal("IMAGENET1K_V1", "resnet50")
    assert message == (
        "resnet50-0676ba61.pth is not in the cache and its host cannot be reached; fetch "
        f"{ResNet50_Weights.IMAGENET1K_V1.url} elsewhere and put it at {cache / 'resnet50-0676ba61.pth'}"
    )


def test_a_network_that_does_not_answer_is_given_up_within_a_second(no_answer):
    assert downloads.CONNECT_SECONDS < 1
    began = time.monotonic()
    assert downloads.reachable("https://weights.example/w.pth") is False
    assert time.monotonic() - began < 60


def test_timm_without_a_network_says_what_to_fetch(monkeypatch, offline):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    message = refusal("timm", "timm/resnet18")
    assert "timm/resnet18.a1_in1k/model.safetensors is not in the Hugging Face cache" in message
    assert "resolve/main/model.safetensors and give its path as model.backbone.weights" in message


def test_timm_takes_what_the_cache_has(monkeypatch, tmp_path, offline):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(tmp_path / "model.safetensors"))
    source = sources.resolve("timm", "timm/resnet18")
    assert source.path == tmp_path / "model.safetensors"
    assert source.contract is not None
    assert source.contract.pixel_mean == pytest.approx((123.675, 116.28, 103.53))


def published(monkeypatch, tmp_path, spec, architecture):
    """The contract and address of published weights, without the file."""
    addresses = []

    def remember(url, _folder):
        addresses.append(url)
        return tmp_path / "w.pth"

    monkeypatch.setattr(sources, "fetched", remember)
    contract = sources.resolve(spec, architecture).contract
    assert contract is not None
    return contract, addresses[0]


def test_the_contract_of_torchvisions_resnet(monkeypatch, tmp_path):
    contract, address = published(monkeypatch, tmp_path, "IMAGENET1K_V1", "resnet50")
    assert contract.pixel_mean == pytest.approx((0.485 * 255, 0.456 * 255, 0.406 * 255))
    assert contract.pixel_std == pytest.approx((0.229 * 255, 0.224 * 255, 0.225 * 255))
    assert (contract.channel_order, contract.stride_in_1x1, contract.bn_eps) == ("RGB", False, 1e-5)
    assert contract.architecture == "resnet50"
    assert address == ResNet50_Weights.IMAGENET1K_V1.url
    assert published(monkeypatch, tmp_path, "DEFAULT", "resnet50")[1] == ResNet50_Weights.IMAGENET1K_V2.url


def test_the_contract_of_the_caffe_vgg16(monkeypatch, tmp_path):
    contract, address = published(monkeypatch, tmp_path, "IMAGENET1K_FEATURES", "vgg16")
    assert contract.pixel_mean == pytest.approx((0.48235 * 255, 0.45882 * 255, 0.40784 * 255), abs=1e-3)
    assert contract.pixel_std == pytest.approx((1.0, 1.0, 1.0))
    assert (contract.stride_in_1x1, contract.bn_eps) == (None, None)
    assert address == VGG16_Weights.IMAGENET1K_FEATURES.url


def test_unknown_names_are_answered_with_known_ones():
    assert "did you mean 'IMAGENET1K_V1'?" in refusal("IMAGENET1K_V3", "resnet18")
    assert "no published weights by name for resnet200; give a file" in refusal("IMAGENET1K_V1", "resnet200")
    assert "takes 'timm' (its own weights) or a file" in refusal("IMAGENET1K_V1", "timm/resnet18")
    assert "timm has no such model or tag; did you mean 'convnext_tiny'?" in refusal("timm", "timm/convnext_tinny")
    assert "nobody has published weights of timm/resnet200; give a file" in refusal("timm", "timm/resnet200")
    assert "no such file" in refusal("weights/none.pth", "resnet18")
