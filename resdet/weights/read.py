"""Reads tensors by name from a weights file; the format is determined by the content, not by the file's name."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from resdet.errors import UserError
from resdet.text import first_few, said_by
from resdet.weights.contract import WeightContract
from resdet.weights.safe_pickle import PickledArray, load_pickle

MAX_HEADER = 100_000_000  # bytes; safetensors' own limit
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before version 1.6
WRAPPERS = ("model", "state_dict", "model_state_dict", "blobs")  # the key under which a checkpoint keeps its tensors
PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "state_dict.",
)  # the prefixes that DataParallel, torch.compile and trainers add
# The exceptions of torch.load for a file that is damaged or contains more than tensors.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, OSError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class WeightsFile:
    """A file's tensors on the CPU, the contract that it declares (or None), and notes about removed wrappers."""

    path: Path
    state: dict[str, Tensor]
    contract: WeightContract | None
    notes: tuple[str, ...]


def read_weights(path: str | Path) -> WeightsFile:
    """Tensors of a .safetensors file, of a torch.save file (.pth, .pt) or of a pickle of numpy arrays (.pkl).

    No code that the file names is executed. A wrapper such as {"model": ...} and a prefix that every name carries
    (`module.`, `model.`) are removed and noted. Raises UserError, one line, for a file that cannot be read.
    """
    path = Path(path)
    kind = _kind(path)
    if path.suffix == ".safetensors" and kind != "safetensors":
        raise UserError(f"{path}: not a safetensors file but {_KINDS[kind]}; refused, as its name says otherwise")
    contract = None
    if kind == "safetensors":
        tree, metadata = read_safetensors(path)
        contract = WeightContract.from_metadata(metadata, str(path))
    else:
        tree = load_pickle(path) if kind == "pickle" else load_torch(path, archive=kind == "zip", mmap=kind == "zip")
    tree, wrapped = _unwrapped(tree, path)
    state, left_out = _tensors(tree, path)
    state, stripped = _without_prefixes(state)
    return WeightsFile(path, state, contract, (*wrapped, *left_out, *stripped))


_KINDS = {"zip": "a torch.save archive", "legacy": "a torch.save file", "pickle": "a pickle"}


def _kind(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file" if not path.exists() else f"{path}: a folder, not a weights file")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise UserError(f"{path}: the file is empty")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(LEGACY_TORCH):
        return "legacy"
    if head[8:9] == b"{":
        return "safetensors"
    if head[:1] in (b"\x80", b"(", b"}", b"]", b"c"):
        return "pickle"
    raise UserError(
        f"{path}: not a weights file, it begins with {head[:16]!a} (known: .safetensors, .pth of torch.save, .pkl)"
    )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Tensors on the CPU and the texts of the header. Raises UserError, one line, for another kind of file
    or damage.
    """
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            return state, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a valid safetensors file ({said_by(error, 120)!a}); fetch it again") from error


def _check_header(path: Path) -> None:
    """Checks the header for errors that safetensors itself does not report as clearly."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] != b"{":
        raise UserError(f"{path}: not a valid safetensors file, it begins with {head[:8]!a}; give another one")
    (header,) = struct.unpack("<Q", head[:8])
    if header > MAX_HEADER:
        raise UserError(
            f"{path}: its header claims {header} bytes, more than the {MAX_HEADER} a safetensors file may have"
        )
    if header + 8 > size:
        raise UserError(f"{path}: truncated, {size} bytes where the header alone has {header + 8}; fetch it again")


def load_torch(path: Path, *, archive: bool = True, mmap: bool = False) -> Any:
    """The content of a torch.save file, which may be plain values and tensors alone; no code that it names is executed.

    `archive` is False for the form before torch 1.6. With `mmap` the tensors are read from the file when they are used.
    Raises UserError, one line, for any other file.
    """
    if archive:
        _check_archive(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about a foreign pickle before it rejects it
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UNREADABLE as error:
        reason = str(error).rpartition("WeightsUnpickler error: ")[2]  # the rest of torch's message is general advice
        reason = " ".join(reason.split())[:140]
        raise UserError(f"{path}: refused or damaged, torch does not load it as tensors alone ({reason!a})") from error


def _check_archive(path: Path) -> None:
    """Raises UserError for a file that is no archive of torch.save.

    torch.save stores without compression, so a compressed member is an attack (zip bomb) or another kind of file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: truncated or damaged archive ({error}); fetch it again") from error
    if not any(member.filename.endswith("/data.pkl") for member in members):
        raise UserError(f"{path}: an archive, but not one of torch.save (it has no data.pkl)")
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise UserError(
            f"{path}: refused, its members are compressed or overlap ({packed[:1]}); torch.save writes neither"
        )


def _unwrapped(tree: Any, path: Path) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """The dict that contains the tensors, inside at most three wrappers."""
    notes: tuple[str, ...] = ()
    for _ in range(3):
        if not isinstance(tree, Mapping):
            raise UserError(f"{path}: holds a {type(tree).__name__}, not tensors by name")
        if any(isinstance(value, Tensor | PickledArray) for value in tree.values()):
            return dict(tree), notes
        key = next((key for key in WRAPPERS if isinstance(tree.get(key), Mapping)), None)
        if key is None:
            break
        tree, notes = tree[key], (*notes, f"taken from its entry {key!r}")
    names = first_few([ascii(key) for key in tree]) or "nothing"
    raise UserError(f"{path}: holds no tensors by name, nor under {', '.join(WRAPPERS)} (it has {names})")


def _tensors(tree: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    state: dict[str, Tensor] = {}
    others: list[str] = []
    for name, value in tree.items():
        if isinstance(name, str) and isinstance(value, Tensor | PickledArray):
            state[name] = _tensor(value, name, path)
        else:
            others.append(ascii(name)[:40])
    return state, ((f"not tensors, left out: {first_few(others)}",) if others else ())


def _tensor(value: Tensor | PickledArray, name: str, path: Path) -> Tensor:
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized:
            raise UserError(f"{path}: tensor {name!a} is sparse or quantized; only dense tensors are read")
        return value.detach()
    try:
        return value.tensor()
    except (ValueError, UnicodeEncodeError) as error:
        raise UserError(f"{path}: entry {name!a} is refused: {error}") from error


def _without_prefixes(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    notes: list[str] = []
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        notes.append(f"prefix {prefix!r} taken off every name")
    return state, tuple(notes)
