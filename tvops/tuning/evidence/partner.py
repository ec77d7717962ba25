"""The other end of a probe, in a process of its own that cannot outlive the measurement.

    python -I -S partner.py PARENT CPU tcp|udp|unix     sends back what it gets; prints its address first
    python -I -S partner.py PARENT CPU exec PROGRAM…    becomes PROGRAM

CPU is the one to run on, or empty.

The kernel kills this process when the one that started it ends, however that ends (prctl(2), PR_SET_PDEATHSIG);
that outlives exec. Started by path and with nothing but the standard library, so that it is there within
milliseconds.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent has ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # it ended before it could be watched


def _say(address: str) -> None:
    sys.stdout.write(address + "\n")
    sys.stdout.flush()


def echo_stream(listener: socket.socket) -> None:
    """Send back what the one client of a stream socket sends."""
    connection, _ = listener.accept()
    if connection.family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(4096):
        connection.sendall(data)


def echo_datagrams(server: socket.socket) -> None:
    """Send every datagram back to where it came from, for ever."""
    while True:
        data, sender = server.recvfrom(4096)
        server.sendto(data, sender)


def serve(kind: str) -> None:
    """Open a socket on loopback, tell its address and echo."""
    if kind == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("")  # the kernel chooses an abstract name
        listener.listen(1)
        _say(listener.getsockname().hex())
        echo_stream(listener)
    elif kind == "tcp":
        listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        _say(str(listener.getsockname()[1]))
        echo_stream(listener)
    else:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        _say(str(server.getsockname()[1]))
        echo_datagrams(server)


if __name__ == "__main__":
    parent, cpu, task, *program = sys.argv[1:]
    end_with(int(parent))
    if cpu:
        os.sched_setaffinity(0, {int(cpu)})
    if task == "exec":
        os.execv(program[0], program)  # noqa: S606 - no shell is wanted
    with contextlib.suppress(ConnectionError, KeyboardInterrupt):
        serve(task)
