"""A stand-in for the Hugging Face Hub on this machine, with repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

TOKEN = "hf_of_the_tests"
URL = "/{repo_id}/resolve/{revision}/{filename}"


class StandIn(ThreadingHTTPServer):
    """Repositories by their names: the files of each commit, the newest last. `sizes` are lies about files' sizes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.uploads: dict[str, bytes] = {}
        self.fetched: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, repository: str, **files: bytes) -> str:
        """A new commit; its name."""
        commits = self.repositories.setdefault(repository, [])
        commits.append({**(commits[-1] if commits else {}), **files})
        return name_of(len(commits))


def name_of(commit: int) -> str:
    return f"{commit:040x}"


@contextmanager
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def environment(address: str, home: Path) -> dict[str, str]:
    """What a process of its own takes the Hub from; Xet, the Hub's other storage, has no stand-in."""
    return {
        "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "127.0.0.1",
    }  # fmt: skip


def take(address: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this process, whose client has read its environment already, take the Hub from there."""
    for name, value in environment(address, home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + URL)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)


class _Handler(BaseHTTPRequestHandler):
    server: StandIn  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            _ = self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            _ = self.rfile.readline()
        _ = self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        repository, _, rest = self.path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        commits = self.server.repositories.get(repository)
        if commits is None:
            return self.answer({}, 404, X_Error_Code="RepoNotFound")
        number = len(commits) if revision == "main" else int(revision, 16) if len(revision) == 40 else 0
        if not 0 < number <= len(commits):
            return self.answer({}, 404, X_Error_Code="RevisionNotFound")
        if file not in commits[number - 1]:
            return self.answer({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=name_of(number))
        content = commits[number - 1][file]
        headers = {"X_Repo_Commit": name_of(number), "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if file in self.server.sizes:
            headers["X_Linked_Size"] = str(self.server.sizes[file])
        if self.command == "GET":
            self.server.fetched.append(file)
        return self.answer(content, 200, **headers)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.server.uploads[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_POST(self) -> None:
        body = self.body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid user token."}, 401)
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            head = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            problems = [] if head["library_name"] == "resdet" else [{"message": "another library"}]
            return self.answer({"errors": problems, "warnings": []}, 400 if problems else 200)
        if path.endswith("/preupload/main"):
            files = [one["path"] for one in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith((".safetensors", ".onnx")) else "regular" for name in files}
            answers = [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in files]
            return self.answer({"files": answers})
        if path.endswith(".git/info/lfs/objects/batch"):
            places = [
                {**one, "actions": {"upload": {"href": f"{self.server.address}/upload/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": places})
        assert path.endswith("/commit/main"), path
        return self.commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), body)

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        address = {"url": f"{self.server.address}/{name}"}
        if name in self.server.repositories:
            return self.answer(address, 409)
        self.server.repositories[name] = []
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.server.private.add(name)
        return self.answer(address)

    def commit(self, repository: str, body: bytes) -> None:
        files: dict[str, bytes] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.uploads[value["oid"]]
        commit = self.server.put(repository, **files)
        self.answer({"commitUrl": f"{self.server.address}/{repository}/commit/{commit}", "commitOid": commit})
