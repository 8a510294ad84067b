"""How the processes of a training end."""

import subprocess
import sys
import time

import pytest

from resdet.engine import distributed
from resdet.engine.distributed import World, join_world
from resdet.engine.peers import Peer


@pytest.mark.parametrize("fails", [False, True])
def test_the_group_is_torn_down_only_after_a_normal_end(monkeypatch: pytest.MonkeyPatch, *, fails: bool):
    destroyed = []
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *_: None)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: destroyed.append(True))
    monkeypatch.setattr(World, "gather", lambda self, value: [value, value])
    monkeypatch.setattr(World, "any", lambda self, flag: flag)
    try:
        with join_world("cpu"):
            if fails:
                raise ValueError("a bug")
    except ValueError:
        pass
    assert bool(destroyed) is not fails


def test_a_process_that_was_killed_counts_as_dead_before_its_parent_knows():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    peer = Peer(Peer.here().machine, process.pid)
    assert not peer.is_dead()
    process.kill()
    deadline = time.monotonic() + 60
    while not peer.is_dead():  # a zombie
        assert time.monotonic() < deadline
    _ = process.wait()
    assert peer.is_dead()
