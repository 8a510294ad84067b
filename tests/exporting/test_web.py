"""`resdet export --format web`: the folder, where its runtime comes from, and the page in a browser."""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resdet
from browser import CHROMIUM, Browser
from exports import HOSTILE_NAMES, in_a_process, save_model
from resdet.cli.main import main
from resdet.config import load_config
from resdet.data.images.decode import read_image
from resdet.engine.evaluate.detections import evaluated_set
from resdet.errors import UserError
from resdet.exporting.contract import read_contract
from resdet.exporting.runtime import ExportedDetector, Found
from resdet.exporting.web import runtime_files as runtime
from resdet.exporting.web.site import NAMES, OWN, page_files
from resdet.workflows.export import Exported, is_export

BOX, SCORE = 0.02, 1e-4  # the page and Python differ by less: pixels, and of a score
DECODER = 3  # of 255: by so much the JPEG decoders of browser and Python may differ


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of the runtime's names, whose sums are taken for the right ones."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in runtime.SHA256:
        _ = (folder / name).write_text(f"// {name}")
    monkeypatch.setattr(runtime, "SHA256", sums(folder))
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    return folder


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def archived(folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files as npm packs them, and the sum of the archive taken for the right one."""
    with tarfile.open(archive, "w:gz") as package:
        for path in folder.iterdir():
            package.add(path, f"package/dist/{path.name}")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    monkeypatch.setattr(runtime, "ARCHIVE_SHA512", digest)
    return archive


def npm_that(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a program named npm before all others."""
    folder.mkdir()
    _ = (folder / "npm").write_text(f"#!/bin/sh\n{does}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_runtime_comes_from_a_folder_or_from_the_archive_of_npm(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {path.name: path.read_bytes() for path in stand_in.iterdir()}
    assert runtime.runtime_files(stand_in) == wanted
    _ = stand_in.rename(tmp_path / "dist")
    assert runtime.runtime_files(tmp_path) == wanted
    assert runtime.runtime_files(archived(tmp_path / "dist", tmp_path / "a.tgz", monkeypatch)) == wanted


def test_npm_fetches_the_runtime_once(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archived(stand_in, tmp_path / "a.tgz", monkeypatch)
    name = f"{runtime.PACKAGE}-{runtime.VERSION}"
    npm_that(f'for last; do :; done; cp "{archive}" "$last/{name}.tgz"', tmp_path / "bin", monkeypatch)
    first = runtime.runtime_files()
    assert sorted(path.name for path in (tmp_path / "cache" / name).iterdir()) == sorted(runtime.SHA256)
    (tmp_path / "bin" / "npm").unlink()
    assert runtime.runtime_files() == first == {path.name: path.read_bytes() for path in stand_in.iterdir()}


@pytest.mark.parametrize(
    ("does", "said"), [("exit 1", r"could not fetch .* \(exit code 1\); give them by --runtime"), ("exit 0", "fetch")]
)
def test_an_npm_that_fails_is_one_line(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, said: str
) -> None:
    npm_that(does, tmp_path / "bin", monkeypatch)
    with pytest.raises(UserError, match=said):
        _ = runtime.runtime_files()


def test_no_npm_is_one_line_before_the_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _ = pytest.importorskip("onnxscript")
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["export", str(tmp_path / "none"), "--format", "web", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "npm, which fetches them, is absent; give them by --runtime" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_version_are_refused(stand_in: Path, tmp_path: Path) -> None:
    _ = (stand_in / "ort.wasm.min.mjs").write_text("// another")
    with pytest.raises(UserError, match=r"ort.wasm.min.mjs: is not of onnxruntime-web"):
        _ = runtime.runtime_files(stand_in)
    with pytest.raises(UserError, match=r"lacks ort.* give them by --runtime"):
        _ = runtime.runtime_files(tmp_path)
    with pytest.raises(UserError, match="is not the archive of onnxruntime-web"):
        _ = runtime.runtime_files(stand_in / "ort.wasm.min.mjs")


def test_a_runtime_belongs_to_a_page(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is that of a page"):
        _ = resdet.export(checkpoint, tmp_path / "out", runtime=tmp_path)


@pytest.fixture(scope="module")
def page(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An export with a runtime that is none."""
    return exported_page(checkpoint, tmp_path_factory.mktemp("pages"))


def exported_page(checkpoint: Path, folder: Path) -> Exported:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _ = pytest.importorskip(package)
    given = folder / "runtime"
    given.mkdir()
    for name in runtime.SHA256:
        _ = (given / name).write_text(f"// {name}")
    return in_a_process(checkpoint, folder / "page", format="web", runtime=str(given), sha256=sums(given))


def test_the_folder_has_all_files_and_may_be_replaced(page: Exported) -> None:
    assert {path.name for path in page.folder.iterdir()} == {
        "README.md", "class_names.json", "contract.json", "example.py", "model.onnx", *NAMES,
    }  # fmt: skip
    assert page.parity.holds
    assert read_contract(page.folder).class_names == HOSTILE_NAMES
    found = ExportedDetector(page.folder)(np.full((64, 64, 3), 128, np.uint8))
    assert found.masks is not None
    assert len(found.masks) == len(found.scores)
    assert is_export(page.folder)
    _ = (page.folder / "mine.txt").write_text("mine")
    assert not is_export(page.folder)
    (page.folder / "mine.txt").unlink()


def test_the_page_loads_nothing_from_elsewhere_and_writes_no_markup(stand_in: Path) -> None:
    files = page_files(stand_in)
    for name in OWN:
        text = files[name].decode()
        assert "innerHTML" not in text
        if name.endswith((".js", ".css", ".html")):
            assert all(address.startswith(("www.w3.org/2000/svg", "localhost:8000")) for address in addresses(text)), (
                name
            )
    assert b"default-src 'none'; script-src 'self'; style-src 'self'" in files["index.html"]


def addresses(text: str) -> list[str]:
    return [part.partition('"')[0] for part in text.replace("https://", "http://").split("http://")[1:]]


# -- in the browser


@pytest.fixture(scope="session")
def real_runtime() -> Path:
    """The real files: of a person's cache, or fetched by npm into that of the tests."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    name = f"{runtime.PACKAGE}-{runtime.VERSION}"
    own = Path.home() / ".cache" / "resdet" / name
    if all((own / file).is_file() for file in runtime.SHA256):
        return own
    try:
        _ = runtime.runtime_files()
    except UserError as error:
        pytest.skip(str(error))
    return runtime.cache_folder() / name


@pytest.fixture(scope="module")
def site(page: Exported, real_runtime: Path) -> Path:
    """The page with the real runtime."""
    return with_runtime(page, real_runtime)


@pytest.fixture(scope="module")
def site_without_masks(real_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a detector that has no masks."""
    folder = tmp_path_factory.mktemp("without_masks")
    return with_runtime(exported_page(save_model(folder / "run"), folder), real_runtime)


def with_runtime(page: Exported, real_runtime: Path) -> Path:
    for name in runtime.SHA256:
        _ = (page.folder / name).write_bytes((real_runtime / name).read_bytes())
    return page.folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def opened(folder: Path, tmp_path: Path) -> Iterator[Browser]:
    """The page in a browser, when the detector is ready."""
    with served(folder) as address:
        browser = Browser(tmp_path / "profile")
        try:
            browser.open(address)
            assert browser.value(SAID.format("ready")) == "ready"
            yield browser
        finally:
            browser.close()


SAID = """new Promise((resolve) => {{
  const line = document.getElementById("status"), wanted = {!r};
  const look = () => {{ const text = line.textContent; if (text.includes(wanted) || line.className) resolve(text); }};
  new MutationObserver(look).observe(line, {{ childList: true, attributes: true }});
  look();
}})"""
FOUND = 'import("./page.js").then((page) => page.found().map(({ label, score, box }) => ({ label, score, box })))'
MASKS = 'import("./page.js").then((page) => page.found().every(({ mask }) => mask !== null))'
PIXELS = """(() => { const at = document.getElementById("pixels");
  return Array.from(at.getContext("2d").getImageData(0, 0, at.width, at.height).data) })()"""
ROWS = "[...document.querySelectorAll('#objects tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"


def looked_at(browser: Browser, image: Path) -> list[dict[str, Any]]:
    """What the page finds in a picture."""
    browser.value('Object.assign(document.getElementById("status"), { textContent: "", className: "" }).id')
    browser.choose_file("#drop input", image)
    said = browser.value(SAID.format(" pixels"))
    assert " pixels" in said, said
    return browser.value(FOUND)


def pictures(folder: Path) -> list[Path]:
    """Three of the val set, one that is reduced, one that is enlarged, a grey one."""
    dataset = evaluated_set(load_config("nano"))
    images = [read_image(dataset.path(index)) for index in range(3)]
    rng = np.random.default_rng(0)
    images += [rng.integers(0, 256, (9, 12, 3), np.uint8).repeat(20, 0).repeat(20, 1), images[0][:40, :50]]
    images += [np.full((90, 120, 3), 128, np.uint8)]
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(len(images))]


@pytest.mark.parametrize("masks", [True, False])
def test_the_page_finds_what_python_finds(tmp_path: Path, request: pytest.FixtureRequest, *, masks: bool) -> None:
    site: Path = request.getfixturevalue("site" if masks else "site_without_masks")
    detector = ExportedDetector(site)
    with opened(site, tmp_path) as browser:
        total = 0
        for picture in pictures(tmp_path):
            found, wanted = looked_at(browser, picture), detector(read_image(picture))
            check_same(found, wanted, picture.name)
            assert (wanted.masks is not None) == masks
            total += len(found)
        assert total > 50
        assert browser.value("document.getElementById('with-masks').hidden") != masks
        assert browser.value(MASKS) == masks
        assert complaints(browser) == []


def check_same(found: list[dict[str, Any]], wanted: Found, name: str) -> None:
    assert len(found) == len(wanted.scores), name
    assert [one["label"] for one in found] == wanted.labels.tolist(), name
    np.testing.assert_allclose([one["score"] for one in found], wanted.scores, atol=SCORE, err_msg=name)
    boxes = np.array([one["box"] for one in found]).reshape(-1, 4)
    np.testing.assert_allclose(boxes, wanted.boxes, atol=BOX, err_msg=name)


def photographs(folder: Path) -> list[Path]:
    """JPEGs of a smooth picture with sharp edges: whole and halved colours, odd sides, grey, progressive, turned."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 11, 3), np.uint8).repeat(9, 0).repeat(9, 1)
    image[20:40, 30:70] = (255, 0, 0)
    picture, turned = Image.fromarray(image), Image.Exif()
    turned[0x0112] = 6
    grey = picture.convert("L")
    picture.save(folder / "whole.jpg", quality=90, subsampling=0)
    picture.save(folder / "halved.jpg", quality=75, subsampling=2)
    picture.save(folder / "wide.jpg", quality=90, subsampling=1)
    picture.save(folder / "progressive.jpg", quality=85, subsampling=2, progressive=True)
    picture.save(folder / "turned.jpg", quality=90, exif=turned)
    grey.save(folder / "grey.jpg", quality=90)
    return [folder / f"{name}.jpg" for name in ("whole", "halved", "wide", "progressive", "turned", "grey")]


def test_a_photograph_has_the_same_pixels_up_to_the_decoder_and_then_the_same_objects(
    site: Path, tmp_path: Path
) -> None:
    detector = ExportedDetector(site)
    with opened(site, tmp_path) as browser:
        for picture in photographs(tmp_path):
            found = looked_at(browser, picture)
            ours, theirs = read_image(picture), np.array(browser.value(PIXELS), np.uint8)
            theirs = theirs.reshape(*ours.shape[:2], 4)[..., :3]
            apart = np.abs(ours.astype(int) - theirs).max()
            assert apart <= DECODER, picture.name
            check_same(found, detector(np.ascontiguousarray(theirs)), picture.name)


def complaints(browser: Browser) -> list[dict[str, Any]]:
    return browser.told("Log.", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialog")


def test_the_slider_and_the_classes_choose_and_names_are_text(site: Path, tmp_path: Path) -> None:
    slide = (
        "(() => {{ const s = document.getElementById('score'); s.value = {}; s.dispatchEvent(new Event('input')) }})()"
    )
    with opened(site, tmp_path) as browser:
        found = looked_at(browser, pictures(tmp_path)[0])
        for score in (0, 0.2, 0.4, 1):
            browser.value(slide.format(score))
            rows = browser.value(ROWS)
            assert len(rows) == sum(one["score"] >= score for one in found)
        browser.value(slide.format(0))
        names = {one["label"]: HOSTILE_NAMES[one["label"]].replace("\x1b", " ") for one in found}
        assert {row[0] for row in browser.value(ROWS)} == set(names.values())
        browser.value("document.querySelector('#classes button').click()")
        assert len(browser.value(ROWS)) < len(found)
        assert browser.value("document.querySelector('#classes button').ariaPressed") == "false"
        assert complaints(browser) == []


def test_no_label_covers_its_own_box_or_another_label(site: Path, tmp_path: Path) -> None:
    places = """(async () => {
      const { places } = await import("./drawing.js");
      const boxes = [[0, 0, 300, 200], [10, 10, 20, 20], [12, 12, 22, 22], [200, 100, 300, 200], [0, 0, 300, 200]];
      return { boxes, places: places(boxes, boxes.map(() => [80, 20]), [0, -24, 300, 224]) };
    })()"""
    with opened(site, tmp_path) as browser:
        answer = browser.value(places)
    spots = answer["places"]
    assert all(spot is not None for spot in spots)
    for i, spot in enumerate(spots):
        assert common(spot, answer["boxes"][i]) == 0
        assert all(common(spot, other) == 0 for other in spots[:i])
        assert 0 <= spot[0] < spot[2] <= 300
        assert -24 <= spot[1] < spot[3] <= 224


def common(a: list[float], b: list[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)


def test_a_file_that_is_no_picture_is_one_line_and_the_next_one_is_read(site: Path, tmp_path: Path) -> None:
    _ = (tmp_path / "<b>no.png").write_text("no picture")
    with opened(site, tmp_path) as browser:
        browser.choose_file("#drop input", tmp_path / "<b>no.png")
        said = browser.value(SAID.format("no picture"))
        assert said == "<b>no.png: is no picture that this browser can read, or too large for it"
        assert looked_at(browser, pictures(tmp_path)[0])


def test_a_page_that_is_opened_as_a_file_says_what_to_do(site: Path, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "profile")
    try:
        browser.open((site / "index.html").as_uri())
        said = browser.value("document.getElementById('status').textContent")
    finally:
        browser.close()
    assert "python3 -m http.server" in said
