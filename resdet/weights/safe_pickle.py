"""Reads numpy arrays and plain containers from a pickle without executing code that the pickle names.

A pickle is a program. This unpickler accepts a closed list of names, and represents each by a small object of ours
without effects: numpy's own reconstruction is never called, no class is returned, and nothing outside the list is
imported.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from resdet.errors import UserError

MAX_BYTES = 8 * 2**30  # larger than any published detector; the file is read into memory
# The exceptions of the unpickler for a damaged or hostile stream of opcodes.
DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, MemoryError, RecursionError, struct.error,
)  # fmt: skip


class PickledArray:
    """An array as its pickle describes it; checked and copied into a tensor by `tensor`."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        self.shape: Any = ()
        self.dtype: Any = None
        self.fortran: Any = False
        self.data: Any = b""

    def __setstate__(self, state: Any) -> None:
        _version, self.shape, self.dtype, self.fortran, self.data = state

    def tensor(self) -> Tensor:
        """A copy that owns its memory. Raises ValueError if shape, type and data are inconsistent."""
        if not isinstance(self.dtype, _DType):
            raise ValueError("an array without a number type")
        dtype = self.dtype.numpy()
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data  # Python 2 wrote text
        sides_fit = isinstance(self.shape, tuple) and all(isinstance(n, int) and 0 <= n < 2**31 for n in self.shape)
        if not sides_fit or not isinstance(data, bytes | bytearray):
            raise ValueError("an array with a shape or data that is not plain numbers")
        if len(self.shape) > 8 or _product(self.shape) * dtype.itemsize != len(data):
            raise ValueError(f"an array of shape {self.shape} and {len(data)} bytes")
        order = "F" if self.fortran else "C"
        array = np.frombuffer(data, dtype).reshape(self.shape, order=order).astype(dtype.newbyteorder("="), order="C")
        return torch.from_numpy(array)


class _DType:
    """numpy.dtype's name and byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any) -> None:
        self.name: Any = name
        self.order: Any = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        name = self.name.decode("ascii") if isinstance(self.name, bytes) else self.name
        if name not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"):
            raise ValueError(f"an array of type {str(name)[:20]!r}")
        order = self.order.decode("ascii") if isinstance(self.order, bytes) else self.order
        if order not in ("<", ">", "=", "|"):
            raise ValueError("an array with an unknown byte order")
        return np.dtype(name).newbyteorder(order)


@dataclass(frozen=True, slots=True)
class _Name:
    """The object for a permitted name. Frozen and without a dict, so that a pickle cannot change it."""

    build: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.build(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the pickle tries to alter a function")


def _reconstruct(_subtype: Any, _shape: Any, _dtype: Any) -> PickledArray:
    return PickledArray()


def _dtype(name: Any, *_align_and_copy: Any) -> _DType:
    return _DType(name)


def _scalar(dtype: Any, data: Any = b"") -> PickledArray:
    return _filled((), dtype, "C", data)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    return _filled(shape, dtype, order, data)


def _filled(shape: Any, dtype: Any, order: Any, data: Any) -> PickledArray:
    array = PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("_codecs.encode of something other than latin1 text")
    return text.encode("latin1")


def _empty_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise pickle.UnpicklingError("bytes() with arguments")
    return b""


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _set(items: Any = ()) -> set[Any]:
    return {_key(item) for item in items}


def _not_called(*_arguments: Any) -> Any:
    raise pickle.UnpicklingError("numpy.ndarray called directly")


def _key(key: Any) -> Any:
    """Keys must be scalars: the hash of a tuple that is nested in itself forty times takes too long."""
    if not isinstance(key, str | bytes | int | float | None):
        raise pickle.UnpicklingError("a key that is neither text nor a number")
    return key


NAMES: dict[tuple[str, str], _Name] = {
    ("numpy", "ndarray"): _Name(_not_called),
    ("numpy", "dtype"): _Name(_dtype),
    ("numpy.core.multiarray", "_reconstruct"): _Name(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Name(_reconstruct),
    ("numpy.core.multiarray", "scalar"): _Name(_scalar),
    ("numpy._core.multiarray", "scalar"): _Name(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Name(_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): _Name(_from_buffer),
    ("_codecs", "encode"): _Name(_encode),
    ("__builtin__", "bytes"): _Name(_empty_bytes),
    ("builtins", "bytes"): _Name(_empty_bytes),
    ("collections", "OrderedDict"): _Name(_ordered_dict),
    ("__builtin__", "set"): _Name(_set),
    ("builtins", "set"): _Name(_set),
}


class Forbidden(pickle.UnpicklingError):
    """The pickle names an object that is neither a numpy array nor a plain container."""


# The pure-Python unpickler: its memo is a dict and its reads are bounded by the file, where the C one allocates
# whatever a length field or a memo index asks for.
class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES:
            raise Forbidden(f"{module}.{name}")
        return NAMES[module, name]

    def get_extension(self, code: int) -> Any:
        raise Forbidden(f"extension code {code}")

    def persistent_load(self, pid: Any) -> Any:
        raise Forbidden("a persistent id")


def _load_setitem(self: Any) -> None:
    value, key = self.stack.pop(), self.stack.pop()
    _dict(self.stack[-1])[_key(key)] = value


def _load_setitems(self: Any) -> None:
    items = self.pop_mark()
    target = _dict(self.stack[-1])
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_key(key)] = value


def _load_dict(self: Any) -> None:
    items = self.pop_mark()
    self.append({_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})


def _load_additems(self: Any) -> None:
    items = self.pop_mark()
    if not isinstance(self.stack[-1], set):
        raise pickle.UnpicklingError("items added to something that is not a set")
    self.stack[-1].update(_key(item) for item in items)


def _load_frozenset(self: Any) -> None:
    items = self.pop_mark()
    self.append(frozenset(_key(item) for item in items))


def _load_bytearray8(self: Any) -> None:
    (size,) = struct.unpack("<Q", self.read(8))
    self.append(bytearray(self.read(min(size, MAX_BYTES))))


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise pickle.UnpicklingError("items set in something that is not a dict")
    return value


_Unpickler.dispatch |= {
    pickle.SETITEM[0]: _load_setitem,
    pickle.SETITEMS[0]: _load_setitems,
    pickle.DICT[0]: _load_dict,
    pickle.ADDITEMS[0]: _load_additems,
    pickle.FROZENSET[0]: _load_frozenset,
    pickle.BYTEARRAY8[0]: _load_bytearray8,
}


def load_pickle(path: Path) -> Any:
    """The pickle's dicts, lists, text, numbers, and `PickledArray` for each numpy array.

    Text of Python 2 is read as latin-1, as Caffe2 and Detectron files need. UserError names the file and the first
    forbidden name; nothing that the pickle names is imported or called.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"{path}: {size / 2**30:.1f} GiB is more than a pickle of weights may have (8 GiB)")
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Forbidden as error:
        raise UserError(
            f"{path}: refused, the pickle asks for {str(error)[:80]!a}; only numpy arrays and plain containers are read"
        ) from error
    except DAMAGED as error:
        raise UserError(f"{path}: not a readable pickle of arrays ({str(error)[:120]!a})") from error


def _product(sides: tuple[int, ...]) -> int:
    total = 1
    for side in sides:
        total *= side
    return total
