"""A supervised toy for the tests of the arbiter: real processes and sockets, no extension module.

Run as `python toy_crew.py WORKERS SETTINGS-FILE [NAME=VALUE of the policy ...]`. Each worker
listens on its share of one TCP port and answers a line `hello` by `PID SETTINGS STATE`. `crash`
kills it with SIGSEGV, `hang` makes it deaf to its supervisor. Settings that contain `wrong` do not
pass the check, and worker-1 refuses those that contain `refuse`. Everything that happens to the
crew is one line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path

from agent.config import Config, Http, Statsd
from agent.log import Log
from agent.supervisor import plan
from agent.supervisor.arbiter import Arbiter, Birth
from agent.supervisor.listeners import Listeners, open_listeners

DISPOSITIONS = {
    signal.SIGINT: signal.SIG_IGN,
    signal.SIGHUP: signal.SIG_IGN,
    signal.SIGCHLD: signal.SIG_DFL,
    signal.SIGTERM: signal.SIG_DFL,
}


class Toy:
    def __init__(self, listeners: Listeners, settings_file: Path, given: plan.Policy) -> None:
        self.given = given
        self.listeners = listeners
        self.file = settings_file
        self.now = self.candidate = settings_file.read_text()
        self.ticks = 0

    def say(self, **what: object) -> None:
        os.write(1, json.dumps(what).encode() + b"\n")

    # -- the supervisor's side -----------------------------------------------------------------

    def settings(self, name: str, new: bool) -> bytes:
        return (self.candidate if new else self.now).encode()

    def check(self) -> str:
        self.candidate = self.file.read_text()
        return "they are wrong" if "wrong" in self.candidate else ""

    def commit(self) -> None:
        self.now = self.candidate
        self.say(did="commit", settings=self.now)

    def reject(self, why: str) -> None:
        self.say(did="reject", why=why)

    def settle(self, name: str) -> None:
        self.say(did="settle", name=name)

    def policy(self) -> plan.Policy:
        return self.given

    def announce(self, what: str) -> None:
        self.say(did="announce", what=what, addresses=self.listeners.addresses)

    def report(self, state: plan.State) -> bytes:
        return json.dumps({"phase": state.phase}).encode()

    def tick(self, now_s: float, state: plan.State) -> float:
        self.ticks += 1
        return now_s + 0.05

    def fork(self, births: list[Birth]) -> list[int]:
        return [self.fork_one(birth) for birth in births]

    def fork_one(self, birth: Birth) -> int:
        name, control_fd = birth.name, birth.control_fd
        if pid := os.fork():
            return pid
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            for number, handler in DISPOSITIONS.items():
                signal.signal(number, handler)
            for descriptor in birth.close:
                os.close(descriptor)
            code = self.run(name, control_fd)
        finally:
            os._exit(code)

    # -- the child's side ----------------------------------------------------------------------

    def run(self, name: str, control_fd: int) -> int:
        if "unusable" in self.now:
            return 78
        control = socket.socket(fileno=os.dup(control_fd))
        own = [] if name == plan.AGGREGATOR else self.listeners.of(plan.place(name))
        by_fd = {sock.fileno(): sock for sock in self.listeners.sockets}
        selector = selectors.DefaultSelector()
        selector.register(control, selectors.EVENT_READ)
        for listener in own:
            if listener.source == "statsd_tcp":
                selector.register(by_fd[listener.fd], selectors.EVENT_READ)
        control.sendall(b"ready\n")
        buffer = b""
        settings, state = self.now, "none"
        while True:
            lines: list[bytes] = []
            for key, _ in selector.select():
                if key.fileobj is not control:
                    self.serve(key.fileobj, settings, state, selector, control)
                    continue
                data = control.recv(65_536)
                *lines, buffer = (buffer + (data or b"\n")).split(b"\n")
            for line in lines:
                word, _, rest = line.decode().partition(" ")
                if word == "state":
                    state = json.loads(rest)["phase"]
                elif word == "reload" and "refuse" in rest and name == "worker-1":
                    control.sendall(b"refused it is not good\n")
                elif word == "reload":
                    settings = rest
                    control.sendall(b"reloaded\n")
                elif word != "yield":  # drain, retire, stop, or the end of the supervisor
                    return 0

    def serve(
        self,
        listener: socket.socket,
        settings: str,
        state: str,
        selector: selectors.BaseSelector,
        control: socket.socket,
    ) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return  # The predecessor or the successor was faster.
        with connection:
            connection.settimeout(60)
            word = connection.makefile("rb").readline().strip()
            if word == b"crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if word == b"hang":
                selector.unregister(control)
            connection.sendall(f"{os.getpid()} {settings.strip()} {state}\n".encode())


def main() -> int:
    workers, settings_file = int(sys.argv[1]), Path(sys.argv[2])
    policy = {k: float(v) for k, _, v in (word.partition("=") for word in sys.argv[3:])}
    config = Config(http=Http(address=""), statsd=Statsd(address="127.0.0.1:0"))
    toy = Toy(open_listeners(config, workers), settings_file, plan.Policy(**policy))
    return Arbiter(plan.begin(workers, toy.given), toy, Log(form="json", level="debug")).run()


if __name__ == "__main__":
    sys.exit(main())
