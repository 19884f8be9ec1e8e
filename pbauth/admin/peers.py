"""
The sessions of all servers that share a store: they ask each other by messages through the store.

A question is a text of JSON that all other servers get; each answers with texts of its own.  A
server that does not answer in time is left out, and the log says so.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from pbauth.interfaces import IServerMessages
from pbauth.net.origin import originOf
from pbauth.perspectives.sessions import EndReason

_log = Logger()

#: Seconds that the other servers have to answer.
PATIENCE = 2.0

#: PostgreSQL takes messages of fewer than 8,000 bytes.
_LONGEST = 7_000

#: A session: id, identity, service, perspective, peer, since.
SessionRow = tuple[str, str, str, str, str, float]
_TYPES = (str, str, str, str, str, float)


def rowOf(session: Any) -> SessionRow:
    """Return the row of a session: id, identity, service, perspective, peer, since."""
    return (
        session.id,
        session.identity.name,
        session.serviceName,
        session.perspectiveName,
        originOf(session.broker).peer,
        float(session.since),
    )


def endByAdministrator(sessions: Any, session: Any, operator: str) -> None:
    """
    End a session, and record who did it.

    Args:
        sessions: that it is one of.
        session: to be ended.
        operator: the administrator.
    """
    sessions.audit.sessionEnded(operator, session.identity.name, session.id)
    # Nobody waits for what the application does then.
    session.end(EndReason.ADMINISTRATOR)


@frozen
class Answers:
    """
    What other servers answered.

    Attributes:
        rows: the sessions that they have, if that was asked.
        ended: how many sessions they have ended.
        unheard: how many servers did not answer; `None`: nobody could be asked.
    """

    rows: list[SessionRow] = field(factory=list)
    ended: int = 0
    unheard: int | None = None


@define
class _Question:
    """
    A question, and what was answered so far.

    Attributes:
        servers: how many there are to answer; `None`: not known yet.
    """

    servers: int | None = None
    ended: int = 0
    answered: int = 0
    rows: list[SessionRow] = field(factory=list)
    done: Deferred[None] = field(factory=Deferred)

    def check(self) -> None:
        """Fire `done` if all have answered."""
        if self.servers is not None and self.answered >= self.servers and not self.done.called:
            self.done.callback(None)


class SessionPeers:
    """
    The sessions of the other servers.

    Args:
        sessions: those of this server, about which it answers.
        messages: carries texts between the servers.
        reactor: provides `IReactorTime`.
    """

    def __init__(self, sessions: Any, messages: IServerMessages, reactor: Any) -> None:
        self._sessions = sessions
        self._messages = messages
        self._reactor = reactor
        self._questions: dict[str, _Question] = {}
        messages.subscribe(self._received)

    async def rows(self) -> Answers:
        """Return the rows of the sessions of the other servers."""
        return await self._ask({"what": "list"})

    async def end(self, session: str, operator: str) -> Answers:
        """
        End a session on whichever server.

        Args:
            session: its id.
            operator: the administrator who does it.
        """
        return await self._ask({"what": "end", "session": session, "by": operator})

    async def endAll(self, name: str, operator: str) -> Answers:
        """
        End all sessions of an identity on the other servers.

        Args:
            name: of the identity.
            operator: the administrator who does it.
        """
        return await self._ask({"what": "endAll", "name": name, "by": operator})

    async def _ask(self, question: dict[str, str]) -> Answers:
        if not self._messages.hears:
            return Answers()
        identifier = secrets.token_hex(8)
        asked = self._questions[identifier] = _Question()
        try:
            await self._messages.send(json.dumps({**question, "ask": identifier}))
            asked.servers = await self._messages.countOthers()
            asked.check()
            asked.done.addTimeout(PATIENCE, self._reactor)
            try:
                await asked.done
            except TimeoutError:
                _log.warn(
                    "{silent} of {servers} other servers did not answer within {seconds:g} "
                    "seconds: their sessions are left out",
                    silent=asked.servers - asked.answered,
                    servers=asked.servers,
                    seconds=PATIENCE,
                )
            return Answers(asked.rows, asked.ended, asked.servers - asked.answered)
        finally:
            del self._questions[identifier]

    # What comes from the others.

    def _received(self, text: str) -> None:
        try:
            said = json.loads(text)
            if "ask" in said:
                # One's own questions come back, and are about the others.
                if said["ask"] not in self._questions:
                    self._answer(said)
            else:
                self._note(said)
        except (ValueError, LookupError, TypeError):
            _log.warn("A message between servers could not be read")

    def _answer(self, said: dict[str, Any]) -> None:
        texts = []
        if said["what"] == "list":
            texts = list(_pages(said["ask"], map(rowOf, self._live())))
        else:
            found = [
                each
                for each in self._live()
                if (said["what"] == "end" and each.id == said["session"])
                or (said["what"] == "endAll" and each.identity.name == said["name"])
            ]
            for each in found:
                endByAdministrator(self._sessions, each, str(said["by"]))
            texts = [json.dumps({"answer": said["ask"], "ended": len(found), "last": True})]
        for text in texts:
            self._messages.send(text).addErrback(
                lambda failure: _log.warn("Can't answer another server: {e}", e=failure.value)
            )

    def _live(self) -> list[Any]:
        return [each for each in self._sessions if each.live]

    def _note(self, said: dict[str, Any]) -> None:
        asked = self._questions.get(said["answer"])
        if asked is None:
            return
        rows = [tuple(row) for row in said.get("rows", ())]
        if any(tuple(map(type, row)) != _TYPES for row in rows):
            raise ValueError
        asked.rows += rows  # type: ignore[arg-type]
        asked.ended += int(said.get("ended", 0))
        asked.answered += bool(said["last"])
        asked.check()


def _pages(identifier: str, rows: Iterable[SessionRow]) -> Iterator[str]:
    """Write the answer to a question for sessions, as texts that are short enough."""

    def write(page: list[str], last: bool) -> str:
        head = json.dumps({"answer": identifier, "last": last})
        return f'{head[:-1]}, "rows": [{", ".join(page)}]}}'

    page: list[str] = []
    size = 0
    for row in rows:
        text = json.dumps(row)
        if page and size + len(text) > _LONGEST:
            yield write(page, False)
            page, size = [], 0
        page.append(text)
        size += len(text) + 2
    yield write(page, True)
