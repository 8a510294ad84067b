"""The Hugging Face Hub, through its own client: names of repositories, downloads and uploads.

What a download holds is not trusted: a detector is one safetensors file of limited size, which is data alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # that of its HTTP library, which differs by version
)

from resdet.downloads import STALL_SECONDS, reachable
from resdet.errors import UserError
from resdet.text import said_by

LARGEST = 8 * 2**30  # bytes of a file of weights
DETECTOR = "model.safetensors"
NAME = re.compile(r"hf:/{1,2}(?P<repository>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class HubName:
    """hf://OWNER/NAME or hf://OWNER/NAME@REVISION (a branch, a tag or a commit; None: main)."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")

    def address(self, file: str) -> str:
        return f"{constants.ENDPOINT}/{self.repository}/resolve/{self.revision or 'main'}/{file}"


def hub_name(given: str | Path) -> HubName | None:
    """The name in `hf://OWNER/NAME`, which a `Path` writes with one slash; None for anything else that does not begin
    with hf:. Raises UserError for a name that no repository has.
    """
    text = str(given)
    if not text.startswith("hf:"):
        return None
    found = NAME.fullmatch(text)
    if found is None:
        raise UserError(
            f"{text}: is no name on the Hugging Face Hub; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
        )
    return HubName(found["repository"], found["revision"])


def hub_detector(name: HubName) -> Path:
    """The model file of a detector on the Hub, the newest of its revision. Raises UserError as `hub_file`."""
    remedy = f"fetch {name.address(DETECTOR)} and give its path"
    return hub_file(name, [DETECTOR], remedy=remedy)


def cached(name: HubName, files: Sequence[str]) -> Path | None:
    """The first of the files that the Hub's cache on this machine has."""
    for file in files:
        found = huggingface_hub.try_to_load_from_cache(name.repository, file, revision=name.revision)
        if isinstance(found, str):
            return Path(found)
    return None


def hub_file(name: HubName, files: Sequence[str], *, remedy: str, largest: int = LARGEST) -> Path:
    """The first of the files that the repository has, in the Hub's cache, downloaded if it is not there or was changed.

    Without a network it is what the cache has. Raises UserError, in one line that ends with `remedy`, for a repository
    without such a file, for one of more than `largest` bytes, and where neither network nor cache has it.
    """
    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        if (here := cached(name, files)) is not None:
            return here
        raise UserError(
            f"{name.repository}/{files[0]} is not in the Hugging Face cache and {constants.ENDPOINT} cannot be reached;"
            f" {remedy}"
        )
    for file in files:
        try:
            return _downloaded(name, file, largest, remedy)
        except EntryNotFoundError:
            continue
    raise UserError(f"{name}: {constants.ENDPOINT}/{name.repository} has none of {', '.join(files)}; {remedy}")


def _downloaded(name: HubName, file: str, largest: int, remedy: str) -> Path:
    """The file in the cache. Raises EntryNotFoundError if the repository does not have it, and UserError."""
    with answered(f"{name}: the download of {file} failed", remedy):
        address = huggingface_hub.hf_hub_url(name.repository, file, revision=name.revision)
        asked = huggingface_hub.get_hf_file_metadata(address, timeout=STALL_SECONDS)
        if asked.size is None or asked.size > largest:
            has = "no size" if asked.size is None else f"{asked.size / 2**20:.0f} MiB"
            raise UserError(f"{name}: {file} has {has}, and at most {largest / 2**20:.0f} MiB are fetched; {remedy}")
        path = huggingface_hub.hf_hub_download(
            name.repository, file, revision=asked.commit_hash, etag_timeout=STALL_SECONDS
        )
    return Path(path)


def push_folder(folder: Path, name: HubName, *, private: bool) -> str:
    """Uploads the files of a folder as one commit, into a repository that is made if it is not there; its address.

    Raises UserError for a name with a revision, without a network, and where the Hub refuses.
    """
    if name.revision is not None:
        raise UserError(f"{name}: an upload goes to main; leave @{name.revision} out")
    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        raise UserError(f"{name}: {constants.ENDPOINT} cannot be reached; try again with a network")
    with answered(
        f"{name}: the upload failed", "log in with `hf auth login`, or set HF_TOKEN to a token that may write"
    ):
        hub = huggingface_hub.HfApi(endpoint=constants.ENDPOINT)
        address = hub.create_repo(name.repository, private=private, exist_ok=True)
        _ = hub.upload_folder(repo_id=name.repository, folder_path=folder, commit_message="Upload a detector by resdet")
    return str(address)


@contextmanager
def answered(failed: str, remedy: str) -> Iterator[None]:
    """Converts what the Hub refuses, and a connection that breaks, into one line; EntryNotFoundError passes."""
    try:
        yield
    except EntryNotFoundError as error:
        if isinstance(error, HfHubHTTPError):  # otherwise the client found no network
            raise
        raise UserError(f"{failed} ({said_by(error)}); {remedy}") from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{failed} ({said_by(error)}); {remedy}") from error
