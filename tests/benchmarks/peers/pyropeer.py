"""Pyro5, with its own serializer. In flight together means its batches: many calls, one message."""

from __future__ import annotations

import threading
from typing import Any

import Pyro5.api
from Pyro5 import config

from tests.benchmarks.child import Watch
from tests.benchmarks.work import WORKS

FAMILY = "threads"

config.SOCK_NODELAY = True


@Pyro5.api.expose  # type: ignore[misc]
class Called:
    def echo(self, value: Any) -> Any:
        return value


class Server:
    def do_listen(self) -> dict[str, Any]:
        daemon = Pyro5.api.Daemon(host="127.0.0.1", port=0)
        uri = daemon.register(Called, "echo")
        threading.Thread(target=daemon.requestLoop, daemon=True).start()
        return {"uri": str(uri)}


class Client:
    def do_connect(self, uri: str) -> None:
        self._proxy = Pyro5.api.Proxy(uri)
        self._proxy._pyroBind()

    def do_calls(self, work: str, count: int) -> dict[str, Any]:
        chosen, proxy = WORKS[work], self._proxy
        answer = proxy.echo(chosen.value)
        assert answer == chosen.value, (work, answer)
        value = chosen.value
        watch = Watch(count)
        if chosen.inFlight == 1:
            for _ in range(count):
                proxy.echo(value)
        else:
            left = count
            while left:
                batch = Pyro5.api.BatchProxy(proxy)
                calls = min(left, chosen.inFlight)
                for _ in range(calls):
                    batch.echo(value)
                for _ in batch():
                    left -= 1
        return watch.stop()
