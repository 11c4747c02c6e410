"""How processes meet before jax starts: real sockets, a thread for a process."""

import json
import socket
import threading
import time

import pytest

from hallujax.cli import main
from hallujax.errors import HallujaxError, ProcessLost, UsageError
from hallujax.training import gathering
from hallujax.training.gathering import gather


@pytest.fixture
def port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def meet(port, *places, timeout=20.0):
    """What every one of `places`, (processes, process), comes to: None, or the error it raises."""
    outcome = [None] * len(places)

    def come(i, processes, process):
        try:
            gather(f"127.0.0.1:{port}", processes, process, timeout)
        except HallujaxError as error:
            outcome[i] = error

    threads = [threading.Thread(target=come, args=(i, *place)) for i, place in enumerate(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return outcome


def test_all_come_in_any_order(port):
    assert meet(port, (4, 3), (4, 1), (4, 0), (4, 2)) == [None] * 4


def test_the_port_is_free_afterwards(port):
    for _ in range(3):
        assert meet(port, (2, 1), (2, 0)) == [None] * 2


def test_a_number_given_twice_is_said_in_every_process(port):
    outcome = meet(port, (3, 0), (3, 1), (3, 1))
    assert all(isinstance(error, UsageError) for error in outcome)
    assert {str(error) for error in outcome} == {
        f"two processes say that they are number 1, on {socket.gethostname()} and {socket.gethostname()}"
    }


def test_a_second_process_0_is_told_that_the_port_is_taken(port):
    first, second = meet(port, (2, 0), (2, 0), timeout=3.0)
    assert {type(first), type(second)} == {UsageError, ProcessLost}
    assert any(f"cannot listen at port {port}" in str(error) for error in (first, second))


def test_processes_that_count_differently_are_told_so(port):
    outcome = meet(port, (2, 0), (3, 1))
    assert all("says there are 3 processes, process 0 says 2" in str(error) for error in outcome)


def test_other_versions_are_named(port, monkeypatch):
    version = gathering.metadata.version
    name = threading.current_thread().name

    def other(package):
        return "0.0.7" if package == "jax" and threading.current_thread().name != name else version(package)

    monkeypatch.setattr(gathering.metadata, "version", other)
    outcome = [None]
    thread = threading.Thread(target=lambda: outcome.append(meet(port, (2, 1))[0]))
    thread.start()
    with pytest.raises(UsageError, match=rf"process 1 on .* has jax 0\.0\.7, process 0 has {version('jax')}"):
        gather(f"127.0.0.1:{port}", 2, 0, 20.0)
    thread.join()
    assert isinstance(outcome[-1], UsageError)


def test_who_never_comes_is_named(port):
    outcome = meet(port, (4, 0), (4, 2), timeout=1.0)
    for error in outcome:
        assert isinstance(error, ProcessLost) and "processes 1, 3 of 4 did not come within 1 s" in str(error)


def test_a_coordinator_that_does_not_answer(port):
    (error,) = meet(port, (2, 1), timeout=0.5)
    assert isinstance(error, ProcessLost)
    assert f"127.0.0.1:{port} cannot be reached within 0.5 s (Connection refused)" in str(error)
    with socket.create_server(("127.0.0.1", port)) as stranger:
        stop = threading.Event()

        def answer():
            stranger.settimeout(0.1)
            while not stop.is_set():
                try:
                    connection, _ = stranger.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.sendall(b"220 mail.example.org\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        (error,) = meet(port, (2, 1), timeout=0.5)
        stop.set()
        thread.join()
    assert "what listens there is not process 0" in str(error)


def test_strangers_do_no_harm(port):
    outcome = [None]
    first = threading.Thread(target=lambda: outcome.append(meet(port, (2, 0))[0]))
    first.start()
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", json.dumps({"process": 1}).encode() + b"\n"):
        for _ in range(100):
            try:
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(said)
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
    assert meet(port, (2, 1)) == [None]
    first.join()
    assert outcome[-1] is None


def test_a_process_that_was_killed_while_it_waited_may_come_again(port):
    outcome = []
    first = threading.Thread(target=lambda: outcome.append(meet(port, (3, 0))[0]))
    first.start()
    versions = {"python": gathering.platform.python_version()}
    versions |= {package: gathering.metadata.version(package) for package in ("jax", "hallujax")}
    hello = {"processes": 3, "process": 1, "host": "gone", "versions": versions}
    for _ in range(100):
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
    connection.sendall(json.dumps(hello).encode() + b"\n")
    time.sleep(0.2)
    connection.close()
    # The last of the others comes before it does: all have come but once, and that does not count.
    third = threading.Thread(target=lambda: outcome.append(meet(port, (3, 2))[0]))
    third.start()
    time.sleep(0.5)
    assert not outcome
    assert meet(port, (3, 1)) == [None]
    first.join()
    third.join()
    assert outcome == [None, None]


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        (["--processes=2"], {}, "--coordinator (or JAX_COORDINATOR_ADDRESS) is missing"),
        (["--coordinator=a:1", "--process=0"], {}, "--processes (or JAX_NUM_PROCESSES) is missing"),
        ([], {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2"}, "--process (or JAX_PROCESS_ID) is missing"),
        (["--coordinator=a:1", "--process=0"], {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two'"),
        (["--coordinator=a", "--process=0", "--processes=2"], {}, "--coordinator is 'a'; it must be HOST:PORT"),
        (["--coordinator=a:1", "--process=2", "--processes=2"], {}, "--process is 2; of 2 processes the numbers are"),
        (["--coordinator=a:1", "--process=0", "--processes=0"], {}, "--processes is 0; at least one"),
        (["--distributed", "--process=1"], {}, "--distributed finds everything out itself"),
        (["--heartbeat-timeout=0"], {}, "--heartbeat-timeout is 0 s; it must be at least 1"),
    ],
)
def test_half_a_place_is_refused(flags, environment, said, tmp_path, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["train", f"--workdir={tmp_path}", *flags]) == 2
    assert said in capsys.readouterr().err
