"""docker/Dockerfile and docker/compose.yaml fit the command, the packages and one another; no daemon is needed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from resdet.cli import serve
from resdet.cli.main import parser_of
from resdet.serving.run import STOPPING

ROOT = Path(__file__).parents[2]
KNOWN = {"FROM", "COPY", "RUN", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"}


def instructions() -> list[tuple[str, str]]:
    """The lines of the Dockerfile by instruction, with continued lines joined."""
    text = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in joined]


def only(name: str) -> str:
    (value,) = [value for instruction, value in instructions() if instruction == name]
    return value


def service() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))["services"]["detector"]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(only("ENV")))


def test_every_instruction_is_one_and_the_shell_takes_the_commands() -> None:
    assert {name for name, _ in instructions()} == KNOWN
    for name, value in instructions():
        if name == "RUN":
            done = subprocess.run(["sh", "-n", "-c", value], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_the_image_starts_a_command_that_resdet_has_with_extras_that_the_wheel_has() -> None:
    program, command, *arguments = [*json.loads(only("ENTRYPOINT")), *service()["command"]]
    assert (program, command) == ("resdet", "serve")
    args = parser_of("serve", serve).parse_intermixed_args(arguments)
    assert (str(args.checkpoint), args.host) == ("/run-to-serve", "0.0.0.0")
    assert f":{args.checkpoint}:ro" in service()["volumes"][0]
    (extras,) = [found[1] for _, value in instructions() if (found := re.search(r"\[([a-z,]+)\]", value))]
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert set(extras.split(",")) <= tomllib.load(file)["project"]["optional-dependencies"].keys()


def test_ports_folders_and_times_agree() -> None:
    port = json.loads(only("ENTRYPOINT"))[-1]
    assert only("EXPOSE") == port
    assert service()["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/health" in only("HEALTHCHECK")
    assert environment()["RESDET_CACHE"] in service()["tmpfs"]
    assert service()["read_only"] is True
    assert int(service()["stop_grace_period"].removesuffix("s")) > STOPPING
    assert only("USER") == "resdet"


class Service(HTTPServer):
    """Answers every question with its status."""

    status = 200


class Answer(BaseHTTPRequestHandler):
    server: Service  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def health() -> Iterator[Service]:
    with Service(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_health_check_passes_for_a_service_that_answers_alone(health: Service) -> None:
    port = json.loads(only("ENTRYPOINT"))[-1]
    command = json.loads(only("HEALTHCHECK").partition("CMD ")[2])

    def code(of: int) -> int:
        given = [sys.executable, *(word.replace(f":{port}/", f":{of}/") for word in command[1:])]
        return subprocess.run(given, capture_output=True, check=False).returncode

    assert command[0] == "python"
    assert code(health.server_address[1]) == 0
    health.status = 503
    assert code(health.server_address[1]) != 0
    assert code(9) != 0, "the port of discard, where nobody listens"
