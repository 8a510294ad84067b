"""Two hosts on one machine: namespaces of the network, of processes and of the host's name, joined by a wire (a veth
pair). They share the disk, as machines with a common file system do. Needs root, `ip` and `unshare`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NETNS = Path("/etc/netns")  # `ip netns exec NAME` shows the files of /etc/netns/NAME in /etc


@dataclass(frozen=True)
class Host:
    """`name` is also the name of its network namespace."""

    name: str
    address: str

    def start(self, command: Sequence[str], said: Path, folder: Path) -> subprocess.Popen[bytes]:
        """The command in `folder`; its output goes to the file `said`. Its process ends all of the host's when it is
        killed.
        """
        inside = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        named = ["sh", "-c", 'hostname "$0" && exec "$@"', self.name, *command]
        with said.open("wb") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *inside, *named], stdout=file, stderr=file, cwd=folder
            )


def are_possible() -> bool:
    """Whether this process may make namespaces."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))):
        return False
    probe = f"resdet{os.getpid()}p"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode == 0
    if made:
        _ip("netns", "delete", probe)
    return made


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that know each other by name; they are gone at the end."""
    hosts = tuple(Host(f"resdet{os.getpid()}{letter}", f"10.77.0.{number}") for number, letter in enumerate("ab", 1))
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
            (NETNS / host.name).mkdir(parents=True)
            names = ["127.0.0.1 localhost", *(f"{each.address} {each.name}" for each in hosts)]
            _ = (NETNS / host.name / "hosts").write_text("\n".join(names) + "\n")
        one, two = hosts
        _ip("link", "add", "wire", "netns", one.name, "type", "veth", "peer", "name", "wire", "netns", two.name)
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "wire")
            for device in ("lo", "wire"):
                _ip("-n", host.name, "link", "set", device, "up")
        yield one, two
    finally:
        for host in hosts:
            _ = subprocess.run(["ip", "netns", "delete", host.name], capture_output=True)
            shutil.rmtree(NETNS / host.name, ignore_errors=True)


def _ip(*arguments: str) -> None:
    _ = subprocess.run(["ip", *arguments], check=True, capture_output=True)
