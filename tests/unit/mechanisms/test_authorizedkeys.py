"""The keys that open an account."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbauth import PublicKey
from pbauth.mechanisms.authorizedkeys import AuthorizedKeys


class _Counting(PublicKey):
    """A key that counts how often it is compared with another one."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        _Counting.compared += 1
        return isinstance(other, PublicKey) and self.raw == other.raw

    __hash__ = PublicKey.__hash__


def _key(number: int, kind: Any = PublicKey) -> Any:
    return kind(number.to_bytes(32, "big"))


class CoversTests(SynchronousTestCase):
    """Whether a key is one of them."""

    def test_covers(self) -> None:
        """The keys themselves, whatever their labels; nothing else."""
        keys = AuthorizedKeys("ED25519", (PublicKey(bytes(32), "laptop"),))
        self.assertTrue(keys.covers(PublicKey(bytes(32), "another label")))
        for other in (_key(1), None, "ED25519", b"", [], keys):  # type: ignore[var-annotated]
            self.assertFalse(keys.covers(other), other)

    def test_manyKeys(self) -> None:
        """A wrong guess is compared with no more keys, however many there are."""
        counts = []
        for size in (2, 5000):
            keys = AuthorizedKeys("ED25519", tuple(_key(each, _Counting) for each in range(size)))
            _Counting.compared = 0
            self.assertFalse(keys.covers(_key(10**6)))
            counts.append(_Counting.compared)
        self.assertEqual(counts, [0, 0])

    def test_readOnce(self) -> None:
        """The keys of an account are not read again for each guess."""
        text = AuthorizedKeys("ED25519", tuple(map(_key, range(20)))).encode()
        read: list[str] = []

        def readLine(line: str) -> PublicKey:
            read.append(line)
            return PublicKey.fromLine(line)

        found = [AuthorizedKeys.decode(text, "ED25519", readLine) for _ in range(3)]
        self.assertEqual(len(read), 20)
        self.assertEqual(found[0], found[2])
