"""Whoever passes the wrong object is told so by the method that gets it."""

from __future__ import annotations

import ast
import fnmatch
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from attrs import frozen
from twisted.application.service import MultiService
from twisted.internet import ssl
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

import pbauth
from pbauth import (
    DefaultAuthorizer,
    Hashing,
    Identity,
    Policy,
    ScramVerifier,
    Service,
    Session,
    SQLAuthorizer,
    makeCertificate,
    testing,
)
from pbauth.echo import EchoService
from pbauth.mechanisms import scram

#: What an application does not call: patterns of `CLASS.METHOD`, and who does.
CALLED_BY_PBAUTH = {
    "*.attached": "the session",
    "*.begin": "the login",
    "*.brokerAttached": "the session",
    "*.brokerDetached": "the session",
    "*.detached": "the session",
    "*.getPerspectiveForIdentity": "the identity",
    "*.identityChanged": "the identity",
    "*.perspectiveMessageReceived": "the session, for each call",
    "*.sessionAttached": "the session",
    "*.sessionDetached": "the session",
    "Authorizer.addIdentity": "the identity; a subclass overrides it",
    "Authorizer.updateIdentity": "the identity; a subclass overrides it",
    "Audit.[!_]*": "whoever has something to record",
    "AuthChallenger.*": "AuthServ, for each login",
    "AuthRoot.rootObject": "the factory, for each connection",
    "AuthServ.*": "AuthRoot, for each connection",
    "Broker.*": "the factory, for each connection, and the transport, for each message",
    "ConnectionLimits.[!_]*": "the login",
    "Derivations.run": "whoever has a password to derive from",
    "EquivalentProofs.*": "the authorizer, for each login and session",
    "Event.*": "RecordingPerspective",
    "FurtherPerspective.*": "PerspectiveClient.attach",
    "IdentityWrapper.*": "AuthServ, for each login",
    "Password.renewVerifier": "the login, in the background",
    "PerspectiveClient.failed": "the client itself",
    "PerspectiveClient.gaveUp": "the client itself",
    "SQLAuthorizer.changed": "the service of changesService",
    "Session.*": "IdentityWrapper, for each login",
    "Voucher.__init__": "issueVoucher, and Voucher.fromText",
    "*.keepVoucher": "issueVoucher",
}

#: Whose types have no name, and why.
UNTYPED = {
    "*issueVoucher": "limits are as for Voucher.only",
    "*.requestAvatarId": "the portal passes credentials of any kind",
    "*.serialize": "as Twisted has it",
    "Audit.*": "the session, which is defined above it",
    "AuthChallenger.*": "what a client sends",
    "AuthServ.*": "its broker may be Twisted's",
    "AuthServerFactory.buildProtocol": "as Twisted has it",
    "Broker.*": "as Twisted has it",
    "Clients.*": "the session, which is defined above it",
    "FurtherPerspective.*": "the connection, which is the client's own",
    "IdentityWrapper.*": "what a client sends",
    "MemoryServer.logIn": "what follows is for connect",
    "*.getService": "the service is of the application's class",
    "*.createPerspective": "the perspective is of the application's class",
    "Session.*": "its broker may be Twisted's",
    "Sessions.holders": "sessions, and logins, which are defined above it",
    "Stream.*": "values of any kind",
    "sendBytes": "a file has no type",
    "stream": "as for call",
    "call": "a PerspectiveClient, which may be called in place of a reference, is defined above it",
    "serverOptions": "a TLSVersion has no type",
}

#: What makes a class of the domain, beside those of pbauth.
LIBRARIES = ("pbauth", "twisted", "cryptography")


@frozen
class Parameter:
    """
    A parameter that takes an object of the domain.

    Attributes:
        owner: the class; of a function, `None`.
        method: the method; of a constructor, ``__init__``.
        name: its own.
        kinds: what it is to be, one of them.
    """

    owner: type | None
    method: str
    name: str
    kinds: tuple[Any, ...]

    @property
    def function(self) -> str:
        """The name of what it is a parameter of: `CLASS.METHOD`, or `FUNCTION`."""
        return self.method if self.owner is None else f"{self.owner.__name__}.{self.method}"

    @property
    def wrong(self) -> list[Any]:
        """Return what it must not be."""
        wrong = [object(), 1]
        if None not in self.kinds:
            wrong.append(None)
        if str not in self.kinds:
            wrong.append("alice")
        if Callable not in self.kinds:
            wrong.append(Identity)
        return wrong


def evaluate(annotation: ast.expr, names: Mapping[str, Any]) -> Iterator[Any]:
    """
    The types that an annotation is a union of. (Not by `typing.get_type_hints`: interfaces of older
    versions of zope.interface have no ``|``.)
    """
    if isinstance(annotation, ast.BinOp):
        yield from evaluate(annotation.left, names)
        yield from evaluate(annotation.right, names)
    else:
        if isinstance(annotation, ast.Subscript):
            annotation = annotation.value
        code = compile(ast.Expression(annotation), "annotation", "eval")
        kind = eval(code, dict(names))  # noqa: S307
        # The name of a union stands for what it is one of.
        for each in typing.get_args(kind) or (kind,):
            yield None if each is type(None) else typing.get_origin(each) or each


def isOfTheDomain(kind: Any) -> bool:
    """Say whether it is a class or an interface of the domain, a callable, or a collection."""
    module = getattr(kind, "__module__", "")
    return isinstance(kind, (type, InterfaceClass)) and (
        module.partition(".")[0] in LIBRARIES
        or module == "collections.abc"
        or kind in (dict, list, tuple, set, frozenset)
    )


def parametersOf(owner: type | None, function: Callable[..., Any]) -> Iterator[Parameter]:
    """Find the parameters of a function that take an object of the domain."""
    names = {**vars(typing), **vars(sys.modules[function.__module__])}
    for name, parameter in inspect.signature(function).parameters.items():
        if not isinstance(parameter.annotation, str) or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        kinds = tuple(evaluate(ast.parse(parameter.annotation, mode="eval").body, names))
        if any(map(isOfTheDomain, kinds)):
            yield Parameter(owner, function.__name__, name, kinds)


def public() -> Iterator[tuple[type | None, Callable[..., Any]]]:
    """All functions, constructors and methods that the public paths lead to."""
    exported = [vars(module)[name] for module in (pbauth, testing) for name in module.__all__]
    for value in [*exported, EchoService]:
        if inspect.isfunction(value):
            yield None, value
        if not inspect.isclass(value) or issubclass(value, BaseException):
            continue
        for name, member in inspect.getmembers(value, inspect.isroutine):
            if name == "__init__" or not name.startswith(("_", "remote_", "perspective_")):
                function = getattr(member, "__func__", member)
                if inspect.isfunction(function) and function.__module__.startswith("pbauth"):
                    yield value, function


FOUND = [each for owner, function in public() for each in parametersOf(owner, function)]

#: What a text calls a parameter that goes by another name elsewhere.
SAID = {
    "credentials": "password",
    "host": "(host|endpoint)",
    "serviceCollection": "collection",
}

#: Parameters that have a default value, but are needed.
NEEDED = {
    "AdminService": ["authorizer"],
    "PerspectiveClient": ["credentials", "serviceName", "username", "reactor"],
}


def stateOf(*objects: Any) -> list[Any]:
    """What the attributes of objects are, and what is in those that are collections."""
    return [
        (name, list(value) if isinstance(value, (dict, list, set)) else id(value))
        for each in objects
        for name, value in sorted(getattr(each, "__dict__", {}).items())
    ]


class ArgumentTests(SynchronousTestCase):
    """Functions, constructors and methods that take an object of the domain."""

    def setUp(self) -> None:
        """Make one good object of each kind, to be passed beside the wrong one."""
        services = MultiService()
        authorizer = DefaultAuthorizer(services, Hashing.CHEAPEST)
        service = Service("game", services, authorizer)
        identity = Identity("alice", authorizer)
        verifier = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 4096)
        certificate = ssl.PrivateCertificate.loadPEM(makeCertificate())
        self.examples: dict[str, Any] = {
            "accounts": authorizer,
            "authServRef": pb.RemoteReference(None, None, 0, False),
            "authorizer": authorizer,
            "before": {scram.NAME: verifier},
            "certificate": certificate,
            "change": lambda record: record,
            "checkers": [],
            "create": lambda name: None,
            "client": None,
            "credentials": "secret",
            "endpoint": "tcp:localhost:1",
            "host": "localhost",
            "identity": identity,
            "Login.identity": "alice",
            "identityName": "alice",
            "iterations": 4096,
            "name": "alice",
            "network": "192.0.2.1",
            "new": verifier,
            "old": verifier,
            "password": "secret",
            "perspective": service.createPerspective("alice"),
            "perspectiveName": "alice",
            "policy": Policy(),
            "port": 1,
            "reactor": Clock(),
            "session": object.__new__(Session),
            "service": "game",
            "serviceName": "chat",
            "serviceParent": services,
            "username": "alice",
            "verifiers": {scram.NAME: verifier},
        }

    def required(self, function: Callable[..., Any], but: str = "") -> dict[str, Any]:
        """Arguments for the parameters that have no default value, `but` for one of them."""
        return {
            name: self.mktemp()
            if name in ("path", "database")
            else self.examples.get(f"{function.__qualname__}.{name}", self.examples.get(name))
            for name, parameter in inspect.signature(function).parameters.items()
            if name not in ("self", but)
            and parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_POSITIONAL
            and parameter.kind is not parameter.VAR_KEYWORD
        }

    def needed(self, owner: type) -> dict[str, Any]:
        """Arguments for the parameters that are needed although they have a default value."""
        return {name: self.examples[name] for name in NEEDED.get(owner.__name__, ())}

    def make(self, owner: type) -> Any:
        """Make an object that a method is called on."""
        made = owner(**self.required(owner), **self.needed(owner))
        if isinstance(made, SQLAuthorizer):
            self.addCleanup(made.close)
        return made

    def problemWith(self, parameter: Parameter, call: Callable[[], Any], wrong: object) -> str:
        """Make a call with a wrong argument, and say what is not right about its outcome."""
        before = stateOf(*self.examples.values())
        outcomes: list[Any] = []
        maybeDeferred(call).addBoth(outcomes.append)
        error = getattr(outcomes[0], "value", outcomes[0]) if outcomes else "no outcome"
        expected = rf"{SAID.get(parameter.name, parameter.name)} must .*{type(wrong).__name__}"
        if not isinstance(error, TypeError) or not re.match(expected, str(error)):
            return f"{parameter.function}({parameter.name}={wrong!r}): {error!r}"
        if stateOf(*self.examples.values()) != before:
            return f"{parameter.function}({parameter.name}={wrong!r}): something was changed"
        return ""

    def test_wrongObjects(self) -> None:
        """
        A `TypeError` names the parameter, what it must be and what was passed; and nothing was
        changed.
        """
        receivers: dict[type, Any] = {}
        problems = []
        tried = 0
        for parameter in FOUND:
            if any(fnmatch.fnmatchcase(parameter.function, each) for each in CALLED_BY_PBAUTH):
                continue
            owner, method = parameter.owner, parameter.method
            if owner is None:
                function = getattr(pbauth, method)
            elif method == "__init__":
                function = partial(owner, **self.needed(owner))
            else:
                if owner not in receivers:
                    receivers[owner] = self.examples[owner.__name__] = self.make(owner)
                function = getattr(receivers[owner], method)
            signed = owner if method == "__init__" and owner else function
            arguments = self.required(signed, but=parameter.name)
            for wrong in parameter.wrong:
                call = partial(function, **{**arguments, parameter.name: wrong})
                problems.append(self.problemWith(parameter, call, wrong))
                tried += 1
        found = "\n".join(filter(None, problems))
        self.assertFalse(found, found)
        self.assertGreater(tried, 400)

    def test_calledByPbauth(self) -> None:
        """Each exception is one from what was found."""
        names = {parameter.function for parameter in FOUND}
        for pattern in CALLED_BY_PBAUTH:
            self.assertTrue(fnmatch.filter(names, pattern), pattern)


class TypeTests(SynchronousTestCase):
    """The types of public functions, constructors and methods."""

    def test_named(self) -> None:
        """
        Each parameter and each result has a type with a name, `WireValue` and `Reactor` among them.
        """
        untyped = set()
        for owner, function in public():
            name = function.__name__ if owner is None else f"{owner.__name__}.{function.__name__}"
            if any(re.search(r"\bAny\b", str(each)) for each in function.__annotations__.values()):
                untyped.add(name)
        known = {name for pattern in UNTYPED for name in fnmatch.filter(untyped, pattern)}
        self.assertEqual(untyped - known, set(), "name the type, or say in UNTYPED why not")
        for pattern in UNTYPED:
            self.assertTrue(fnmatch.filter(untyped, pattern), pattern)
