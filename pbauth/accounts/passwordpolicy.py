"""
What a new password has to be like, where an administrator says so.

The library's own `Identity.setPassword` takes any password: whoever calls it has decided already.
The policy is asked by the ``pbauth`` command, and by imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from attrs import Attribute, field, frozen

from pbauth.errors import InvalidPassword
from pbauth.mechanisms.saslprep import saslprep
from pbauth.mechanisms.scram import preparePassword

#: zxcvbn takes more time the longer a password is, and looks at no more than this.
_LOOKED_AT = 72


def _findStrengthMeter() -> Any:
    try:
        return import_module("zxcvbn").zxcvbn
    except ModuleNotFoundError as missing:
        if missing.name != "zxcvbn":
            raise
        return None


def _checkLength(instance: Any, attribute: Attribute[int], value: int) -> None:
    if not 1 <= value <= 128:
        raise ValueError("The length that passwords must have is from 1 to 128.")


def _checkStrength(instance: Any, attribute: Attribute[int | None], value: int | None) -> None:
    if value is None:
        return
    if not 0 <= value <= 4:
        raise ValueError("The strength that passwords must have is from 0 to 4.")
    if _findStrengthMeter() is None:
        raise ValueError("strength needs one more package. Run: pip install 'pbauth[strength]'")


@frozen
class PasswordPolicy:
    """
    Say what a new password has to be like.

    Attributes:
        minLength: how many characters it must have, counted as they are hashed (after SASLprep).
        strength: the score that zxcvbn must give it: 0 (any), 1 (takes more than a thousand
            guesses), 2 (a million), 3 (a hundred million), 4 (ten billion); `None`: it is not
            asked. Needs the extra ``strength``.

    Raises:
        ValueError: there can't be such a policy, or zxcvbn is not installed.
    """

    minLength: int = field(default=6, validator=_checkLength)
    strength: int | None = field(default=None, validator=_checkStrength)

    @classmethod
    def fromText(cls, text: str) -> PasswordPolicy:
        """
        Read a policy as a user writes it.

        Args:
            text: ``length=12,strength=3``, or only one of them; empty: the defaults.

        Returns:
            The policy.

        Raises:
            ValueError: it is not of that form, or see the class.
        """
        fields = {"length": "minLength", "strength": "strength"}
        found: dict[str, Any] = {}
        for part in text.split(",") if text.strip() else ():
            name, _, number = (piece.strip() for piece in part.partition("="))
            if (
                name not in fields
                or fields[name] in found
                or not (number.isascii() and number.isdigit() and len(number) < 5)
            ):
                raise ValueError("A policy is, for instance: length=12,strength=3")
            found[fields[name]] = int(number)
        return cls(**found)

    def check(self, password: str, name: str) -> None:
        """
        Check a new password of a user.

        Args:
            password: as it was typed.
            name: of the identity.

        Raises:
            TypeError: the password is not a `str`.
            InvalidPassword: it may not; the text says what to do, and shows nothing of it.
        """
        prepared = preparePassword(password).decode("utf-8")
        if len(prepared) < self.minLength:
            raise InvalidPassword(
                "The password is too short. Choose one of at least "
                f"{self.minLength} characters; a few words are also good."
            )
        if prepared.casefold() == _prepareName(name).casefold():
            raise InvalidPassword("The password is the name of the user. Choose another one.")
        if self.strength is not None:
            self._checkStrength(prepared, name, self.strength)

    def _checkStrength(self, password: str, name: str, wanted: int) -> None:
        found = _findStrengthMeter()(password[:_LOOKED_AT], user_inputs=[name])
        if found["score"] < wanted:
            # The warning is one of a few sentences, with nothing of the password.
            warning = (found["feedback"]["warning"] or "").rstrip(".")
            raise InvalidPassword(
                f"The password is too easy to guess (strength {found['score']}, {wanted} is "
                f"needed){': ' + warning if warning else ''}. Choose a longer one: a few words "
                "that have nothing to do with each other."
            )


def _prepareName(name: str) -> str:
    try:
        return saslprep(name)
    except ValueError:
        # No identity has that name; whoever makes identities says so.
        return name
