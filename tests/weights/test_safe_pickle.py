"""A pickle of arrays is read; a pickle that asks for anything else runs nothing."""

import builtins
import collections
import os
import pickle
import struct
import subprocess
import time
from typing import Any

import numpy as np
import pytest
import torch

from resdet.errors import UserError
from resdet.weights.read import read_weights
from resdet.weights.safe_pickle import NAMES, PickledArray, load_pickle

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
BYTES = ARRAY.tobytes()


def write(path, data):
    _ = path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_are_read(tmp_path, protocol):
    arrays = {"w": ARRAY, "n": np.array([3, 4]), "t": np.asfortranarray(ARRAY), "b": np.array([True, False])}
    file = write(tmp_path / "a.pkl", pickle.dumps({"model": arrays, "__author__": "x"}, protocol=protocol))
    weights = read_weights(file)
    assert weights.notes == ("taken from its entry 'model'",)
    for name, array in arrays.items():
        torch.testing.assert_close(weights.state[name], torch.from_numpy(np.ascontiguousarray(array)), rtol=0, atol=0)


def test_plain_containers_are_read(tmp_path):
    tree = {
        "l": [1, 2.5, None, True],
        "t": (b"x", "y"),
        "s": {1, 2},
        "o": collections.OrderedDict(a=1),
        "f": frozenset("a"),
    }
    for protocol in range(2, 6):
        if protocol < 4:
            tree.pop("f", None)  # a frozenset has an opcode of its own from protocol 4 on
        assert load_pickle(write(tmp_path / "a.pkl", pickle.dumps(tree, protocol=protocol))) == tree
        tree["f"] = frozenset("a")


def test_big_endian_and_scalars_are_read(tmp_path):
    tree = {"big": ARRAY.astype(">f4"), "half": ARRAY.astype(np.float16), "scalar": np.float32(2.5)}
    state = read_weights(write(tmp_path / "a.pkl", pickle.dumps(tree))).state
    torch.testing.assert_close(state["big"], torch.from_numpy(ARRAY))
    torch.testing.assert_close(state["half"], torch.from_numpy(ARRAY.astype(np.float16)))
    torch.testing.assert_close(state["scalar"], torch.tensor(2.5))


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_python_2_pickles_with_latin1_bytes_are_read(tmp_path, module):
    data = ARRAY.tobytes()
    stream = (
        b"\x80\x02}U\x07conv1_w"
        + b"c%b\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R" % module
        + b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(data))
        + data
        + b"tbs."
    )
    state = read_weights(write(tmp_path / "R-50.pkl", stream)).state
    torch.testing.assert_close(state["conv1_w"], torch.from_numpy(ARRAY), rtol=0, atol=0)


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(canary):
    command = f"touch {canary}"
    quoted = command.encode()
    return {
        "os.system": pickle.dumps({"w": ARRAY, "x": Calls(os.system, command)}),
        "protocol 0": pickle.dumps(Calls(os.system, command), protocol=0),
        "eval": pickle.dumps(Calls(builtins.eval, f"__import__('os').system({command!r})")),
        "exec": pickle.dumps(Calls(builtins.exec, f"import os; os.system({command!r})")),
        "popen": pickle.dumps(Calls(subprocess.Popen, ["touch", str(canary)])),
        "open": pickle.dumps(Calls(builtins.open, str(canary), "w")),
        "getattr": pickle.dumps(Calls(builtins.getattr, np.ndarray, "tofile")),
        "__import__": pickle.dumps(Calls(builtins.__import__, "antigravity")),
        "numpy.load": pickle.dumps(Calls(np.load, str(canary))),
        "numpy.save": pickle.dumps(Calls(np.save, str(canary), ARRAY)),
        "torch.load": pickle.dumps(Calls(torch.load, str(canary))),
        "instance": b"(S'%b'\nios\nsystem\n." % quoted,
        "object": b"(cos\nsystem\nS'%b'\no." % quoted,
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([len(quoted)]) + quoted + b"\x85R.",
        "dotted": b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x18_reconstruct.__globals__\x93.",
        "a function as a class": b"\x80\x02cnumpy\ndtype\n)\x81.",
        "ndarray called": b"\x80\x02cnumpy\nndarray\nK\x09\x85R.",
        "altered function": b"\x80\x02cnumpy\ndtype\n}U\x05build}sb.",
        "altered function, slots": b"\x80\x02cnumpy\ndtype\nN}U\x05buildK\x01s\x86b.",
        "altered name": b"\x80\x02c_codecs\nencode\n(NcX\nX\n\x86tb.",
        "other codec": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent id": b"\x80\x02K\x01Q.",
        "attributes of an array": pickle.dumps(Calls(np.ndarray.__reduce__, ARRAY)),
    }


@pytest.mark.parametrize("name", hostile("x"))
def test_a_hostile_pickle_runs_nothing(tmp_path, name):
    canary = tmp_path / "canary"
    file = write(tmp_path / "model_final.pkl", hostile(canary)[name])
    with pytest.raises(UserError) as caught:
        _ = load_pickle(file)
    assert not canary.exists()
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_refusal_names_the_forbidden_global(tmp_path):
    file = write(tmp_path / "a.pkl", pickle.dumps(Calls(os.system, "true")))
    with pytest.raises(UserError, match=r"refused, the pickle asks for 'posix\.system'; only numpy arrays"):
        _ = read_weights(file)


def test_an_escape_sequence_in_a_name_does_not_reach_the_terminal(tmp_path):
    with pytest.raises(UserError) as caught:
        _ = load_pickle(write(tmp_path / "a.pkl", b"\x80\x02cos\x1b[2J\nsystem\n."))
    assert "\x1b" not in str(caught.value)


def test_the_permitted_names_cannot_be_altered():
    for name in NAMES.values():
        with pytest.raises((AttributeError, TypeError)):
            name.build = os.system  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises((AttributeError, TypeError)):
            name.other = os.system  # pyright: ignore[reportAttributeAccessIssue]


def doubled_tuples(levels):
    """A tuple nested in itself: 2 ** levels steps to hash."""
    return b"\x80\x02" + b")" + b"2\x86" * levels


BOMBS = {
    "hash of a key": b"\x80\x02}" + doubled_tuples(60)[2:] + b"K\x01s.",
    "hash of keys": b"\x80\x02}(" + doubled_tuples(60)[2:] + b"K\x01u.",
    "hash in a dict": b"\x80\x02(" + doubled_tuples(60)[2:] + b"K\x01d.",
    "hash in a set": b"\x80\x04\x8f(" + doubled_tuples(60)[2:] + b"\x90.",
    "hash in a frozenset": b"\x80\x04(" + doubled_tuples(60)[2:] + b"\x91.",
    "hash in builtins.set": b"\x80\x02c__builtin__\nset\n]" + doubled_tuples(60)[2:] + b"a\x85R.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"x.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "memo": b"\x80\x02Nr\xff\xff\xff\xff}q\x00.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "huge int": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "truncated": pickle.dumps({"w": ARRAY})[:-20],
    "no opcodes": b"\x80\x02",
    "nonsense": b"\x80\x02" + bytes(range(256)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once(tmp_path, name):
    began = time.process_time()
    with pytest.raises(UserError):
        _ = read_weights(write(tmp_path / "a.pkl", BOMBS[name]))
    assert time.process_time() - began < 10


def crooked(shape: Any = (2, 3), dtype="f4", order="<", data: Any = BYTES):
    array = PickledArray()
    array.shape, array.data = shape, data
    kind = NAMES["numpy", "dtype"](dtype, False, True)
    kind.__setstate__((3, order, None, None, None, -1, -1, 0))
    array.dtype = kind
    return array


def test_an_array_must_fit_its_data():
    torch.testing.assert_close(crooked().tensor(), torch.from_numpy(ARRAY))
    for wrong in (
        crooked(shape=(2, 4)),
        crooked(shape=(-2, -3)),
        crooked(shape=(2**40, 2**40)),
        crooked(shape=[2, 3]),
        crooked(shape=(1,) * 9 + (6,)),
        crooked(dtype="O8"),
        crooked(dtype="V4"),
        crooked(order="!"),
        crooked(data=[1, 2, 3]),
        PickledArray(),
    ):
        with pytest.raises(ValueError, match="array"):
            _ = wrong.tensor()


def test_object_arrays_are_refused(tmp_path):
    file = write(tmp_path / "a.pkl", pickle.dumps({"w": np.array([{}, []], dtype=object)}))
    with pytest.raises(UserError, match="entry 'w' is refused: an array of type 'O8'"):
        _ = read_weights(file)
