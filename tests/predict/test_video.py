"""Videos and cameras: every frame once and in order, one at a time, and one line for what is no video."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from browser import CHROMIUM, Browser
from clips import StandIn, frame_of, number_of, write_clip
from resdet import Camera, Video
from resdet.data.images.decode import ImageError
from resdet.errors import UserError
from resdet.predict.drawn_video import drawn_video
from resdet.predict.predictor import Predictor


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("mp4", "mp4v"), ("mkv", "mp4v")])
def test_every_frame_comes_once_and_in_order_with_its_time(tmp_path: Path, suffix: str, codec: str) -> None:
    frames = list(Video(write_clip(tmp_path / f"a.{suffix}", codec=codec)).frames())
    assert [number_of(frame.pixels) for frame in frames] == [frame.number for frame in frames] == list(range(6))
    assert [frame.seconds for frame in frames] == pytest.approx([number / 10 for number in range(6)], abs=1e-6)
    assert {frame.rate for frame in frames} == {10.0}


def test_each_second_frame_keeps_its_number_and_halves_the_rate(tmp_path: Path) -> None:
    frames = list(Video(write_clip(tmp_path / "a.avi"), every=2).frames())
    assert [(frame.number, number_of(frame.pixels), frame.rate) for frame in frames] == [(n, n, 5.0) for n in (0, 2, 4)]


def test_a_video_gives_an_iterator_and_a_frame_is_predicted_as_an_image(predictor: Predictor, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", noise=True)
    found = list(predictor(str(path)))
    assert [one.moment.number for one in found] == list(range(6))
    assert {one.path for one in found} == {path}
    for one in found:
        same = predictor(one.image.copy())
        np.testing.assert_allclose(one.scores, same.scores, atol=1e-5)
        np.testing.assert_allclose(one.boxes, same.boxes, atol=1e-3)


def test_frames_are_decoded_as_the_predictions_are_taken_and_then_forgotten(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, decoded = Video.frames, list[Any]()

    def counted(video: Video) -> Any:
        for frame in frames(video):
            decoded.append(weakref.ref(frame.pixels))
            yield frame

    monkeypatch.setattr(Video, "frames", counted)
    most = 0
    for number, prediction in enumerate(predictor(Video(write_clip(tmp_path / "a.avi", frames=24)))):
        assert prediction.moment is not None
        assert len(decoded) < number + 16, "not the whole video is read beforehand"
        del prediction
        _ = gc.collect()
        most = max(most, sum(pixels() is not None for pixels in decoded))
    assert len(decoded) == 24
    assert most < 16, "frames in memory"


def test_a_video_in_a_list_asks_for_a_stream(predictor: Predictor, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", frames=2)
    for images in ([path], str(tmp_path / "*.avi")):
        with pytest.raises(UserError, match=r"is a video in a list; .*stream"):
            _ = predictor(images)
        assert [one.moment.number for one in predictor.stream(images) if one.moment] == [0, 1]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 3]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("a.mp4", cut, "damaged video"),
        ("a.mp4", lambda _: b"", "not a readable video"),
        ("a.mp4", lambda _: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a readable video"),
        ("a.mp4", lambda _: b"\0\0\0\x18ftypmp42" + bytes(64), "damaged video"),
        ("a.mp4", lambda data: data[:40] + b"\x55" * len(data[40:]), "damaged video"),
    ],
)
def test_what_is_no_video_is_one_line(
    predictor: Predictor,
    tmp_path: Path,
    name: str,
    damage: Callable[[bytes], bytes],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = write_clip(tmp_path / name, codec="mp4v")
    _ = path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ImageError, match=message) as raised:
        _ = list(predictor(path))
    assert str(raised.value).count("\n") == 0
    assert capfd.readouterr() == ("", ""), "the decoder says nothing of its own"


def test_a_video_that_is_cut_off_gives_its_frames_and_then_an_error(predictor: Predictor, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", frames=40)
    _ = path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    taken = predictor(path)
    seen = []
    with pytest.raises(ImageError, match=r"a.avi: ends at .* of 4.0 seconds, after frame \d+; it is cut off"):
        seen.extend(number_of(one.image) for one in taken)
    assert seen == [number % 10 for number in range(len(seen))]
    assert 5 < len(seen) < 35


def test_a_name_that_is_not_utf8_a_pipe_and_a_folder_do_no_harm(predictor: Predictor, tmp_path: Path) -> None:
    odd = tmp_path / "\udcff.avi"
    _ = write_clip(tmp_path / "a.avi", frames=2).rename(odd)
    assert len(list(predictor(odd))) == 2
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ImageError, match="no regular file"):
        _ = list(predictor(tmp_path / "pipe.mp4"))
    (tmp_path / "pipe.mp4").unlink()
    with pytest.raises(UserError, match=r"its videos are meant by a pattern, such as .*\*.avi"):
        _ = predictor(tmp_path)


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """No camera is on this machine; the stand-in has the calls of OpenCV's."""
    camera, real = StandIn(), cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda *given: camera if given == (0,) else real(*given))
    return camera


def test_a_camera_gives_as_many_images_as_are_taken(predictor: Predictor, camera: StandIn) -> None:
    found = list(predictor(Camera(0, frames_taken=2)))
    assert [one.source.name for one in found] == ["camera 0, frame 0", "camera 0, frame 1"]
    assert camera.released
    assert all(one.moment is not None and one.moment.live for one in found)


def test_a_camera_that_stops_is_one_line(predictor: Predictor, camera: StandIn) -> None:
    with pytest.raises(ImageError, match="camera 0: gives no more images; is it connected"):
        _ = list(predictor(Camera(0)))
    assert camera.released


def test_a_camera_that_is_not_there_is_one_line(predictor: Predictor, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImageError, match="camera 77: gives no images"):
        _ = list(predictor(Camera(77)))
    assert capfd.readouterr() == ("", "")


def test_numbers_that_make_no_sense_are_mistakes() -> None:
    for make in (lambda: Video("a.mp4", every=0), lambda: Camera(-1), lambda: Camera(0, frames_taken=0)):
        with pytest.raises(UserError, match=r"must be at least 1|give a number from 0"):
            _ = make()


def test_a_drawn_video_has_the_frames_in_order_with_even_sides(tmp_path: Path) -> None:
    with drawn_video(tmp_path / "out.webm", 10.0) as video:
        for number in range(5):
            video.add(frame_of(number, 47, 65))
    frames = list(Video(tmp_path / "out.webm").frames())
    assert [number_of(frame.pixels) for frame in frames] == list(range(5))
    assert frames[0].pixels.shape == (48, 66, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["out.webm"]


def test_a_drawn_video_of_a_camera_shows_a_frame_until_the_next_one_came(tmp_path: Path) -> None:
    with drawn_video(tmp_path / "out.webm", 10.0) as video:
        for number, seconds in enumerate((0.0, 0.3, 0.31, 0.6)):
            video.add(frame_of(number), seconds)
    shown = [number_of(frame.pixels) for frame in Video(tmp_path / "out.webm").frames()]
    assert shown == [0, 0, 0, 1, 2, 2, 3]


def test_opening_a_drawn_video_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """OpenCV would write a line about webm to the standard error of the process."""
    with drawn_video(tmp_path / "out.webm", 10.0) as video:
        video.add(frame_of(0))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_plays_a_drawn_video(tmp_path: Path) -> None:
    with drawn_video(tmp_path / "out.webm", 10.0) as video:
        for number in range(5):
            video.add(frame_of(number))
    played = """new Promise((resolve) => {
      const video = document.createElement("video");
      video.oncanplaythrough = () => resolve([video.videoWidth, video.videoHeight]);
      video.onerror = () => resolve(video.error.message);
      video.src = "out.webm";
    })"""
    _ = (tmp_path / "page.html").write_text("<!doctype html><title>a page</title>")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open((tmp_path / "page.html").as_uri())
        assert browser.value(played) == [64, 48]
    finally:
        browser.close()


def test_a_drawn_video_that_is_not_complete_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> None:
        with drawn_video(tmp_path / "out.webm", 10.0) as video:
            video.add(frame_of(0))
            video.written += 1  # as if the disk had not taken the last one

    with pytest.raises(UserError, match="is the disk full"):
        written()
    assert list(tmp_path.iterdir()) == []
