import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from resdet.engine.signals import StopRequest


def test_a_signal_is_a_request_and_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        assert stop.signal_name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_wait_for_data_ends_at_once():
    def stuck() -> Iterator[int]:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(300)
        yield 1

    start = time.monotonic()
    with StopRequest() as stop:
        assert stop.next(stuck()) is None
        assert stop.requested
    assert time.monotonic() - start < 60


def test_a_loader_that_skips_errors_does_not_swallow_the_request():
    def tolerant() -> Iterator[int]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception:
            yield 1

    with StopRequest() as stop:
        assert stop.next(tolerant()) is None


def test_items_come_in_order_and_none_at_the_end():
    with StopRequest() as stop:
        items = iter([3, 4])
        assert [stop.next(items) for _ in range(3)] == [3, 4, None]
        assert not stop.requested


def test_a_second_signal_leaves_at_once():
    script = (
        "import os, signal, time\n"
        "from resdet.engine.signals import StopRequest\n"
        "with StopRequest():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 143
