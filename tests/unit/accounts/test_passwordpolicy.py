"""What a new password has to be like."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbauth import DefaultAuthorizer, Hashing, InvalidPassword
from pbauth.accounts import passwordpolicy
from pbauth.accounts.passwordpolicy import PasswordPolicy
from pbauth.admin.administration import Administration


class CheckTests(SynchronousTestCase):
    """Passwords, one by one."""

    def refused(self, password: str, said: str, policy: PasswordPolicy, name: str = "bob") -> None:
        """Try one that is not good enough."""
        with self.assertRaises(InvalidPassword) as caught:
            policy.check(password, name)
        self.assertIn(said, str(caught.exception))
        self.assertNotIn(password, str(caught.exception))

    def test_length(self) -> None:
        """Characters count as they are hashed."""
        policy = PasswordPolicy()
        self.refused("12345", "at least 6 characters", policy)
        policy.check("123456", "bob")
        policy.check("東京東京東京", "bob")
        # Soft hyphens are hashed away.
        self.refused("a\u00adb\u00adc\u00ad", "at least 6 characters", policy)
        self.refused("eleven byte", "at least 12 characters", PasswordPolicy(12))
        PasswordPolicy(12).check("twelve bytes", "bob")

    def test_name(self) -> None:
        """The user's own name is none, however it is written."""
        policy = PasswordPolicy()
        for password in ("roberta", "ROBERTA", "ro\u00adberta"):
            self.refused(password, "the name of the user", policy, "Roberta")
        policy.check("roberta!", "Roberta")

    def test_impossible(self) -> None:
        """What can't be a password is not taken for a short one."""
        self.refused("\u0007", "a character that is not allowed", PasswordPolicy())
        with self.assertRaises(TypeError):
            PasswordPolicy().check(b"password", "bob")  # type: ignore[arg-type]

    def test_strength(self) -> None:
        """What everybody would try is refused; and what somebody would who knows the name."""
        policy = PasswordPolicy(strength=3)
        self.refused("password1", "strength 0, 3 is needed", policy)
        self.refused("password1", "very common", policy)
        self.refused("Zebedäus-Wirth1", "too easy to guess", policy, "Zebedäus-Wirth")
        policy.check("gorilla envelope sundial", "bob")
        PasswordPolicy(strength=0).check("password", "bob")

    @settings(max_examples=50)
    @given(st.text(min_size=1, max_size=200), st.text(max_size=20))
    def test_anyText(self, password: str, name: str) -> None:
        """Whatever it is, it is good or it is refused."""
        for policy in (PasswordPolicy(), PasswordPolicy(strength=4)):
            try:
                policy.check(password, name)
            except InvalidPassword as error:
                self.assertTrue(str(error).isprintable())


class TextTests(SynchronousTestCase):
    """The policy as users say it."""

    def test_read(self) -> None:
        """Both, one, or none."""
        for text, policy in [
            ("length=12,strength=3", PasswordPolicy(12, 3)),
            (" strength = 0 ", PasswordPolicy(strength=0)),
            ("length=8", PasswordPolicy(8)),
            ("", PasswordPolicy(6)),
        ]:
            self.assertEqual(PasswordPolicy.fromText(text), policy)

    def test_mistakes(self) -> None:
        """Each says what is meant."""
        for text, said in [
            ("12", "for instance: length=12"),
            ("length", "for instance"),
            ("length=-1", "for instance"),
            ("length=8,length=9", "for instance"),
            ("entropy=3", "for instance"),
            ("length=0", "from 1 to 128"),
            ("length=129", "from 1 to 128"),
            ("strength=5", "from 0 to 4"),
        ]:
            with self.assertRaises(ValueError) as caught:
                PasswordPolicy.fromText(text)
            self.assertIn(said, str(caught.exception))

    def test_notInstalled(self) -> None:
        """Without zxcvbn it is said how to get it; nothing else needs it."""

        def missing(name: str) -> None:
            raise ModuleNotFoundError(name=name)

        self.patch(passwordpolicy, "import_module", missing)
        with self.assertRaises(ValueError) as caught:
            PasswordPolicy.fromText("strength=3")
        self.assertIn("pip install 'pbauth[strength]'", str(caught.exception))
        PasswordPolicy.fromText("length=9").check("long enough", "bob")


class AdministrationTests(SynchronousTestCase):
    """An administrator sets passwords that the policy allows."""

    def test_asked(self) -> None:
        """It is asked for new users and for new passwords; the library itself takes any."""
        authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        admin = Administration(authorizer, policy=PasswordPolicy(8))

        def do(name: str, password: str | None) -> Deferred[None]:
            return Deferred.fromCoroutine(getattr(admin, name)("alice", password))

        self.failureResultOf(do("addUser", "sevenup"), InvalidPassword)
        self.assertEqual(authorizer.identities, {})
        self.successResultOf(do("addUser", "eightups"))
        self.failureResultOf(do("setPassword", "sevenup"), InvalidPassword)
        alice = authorizer.identities["alice"]
        self.successResultOf(alice.verifyPlainPassword("eightups"))
        alice.setPassword("x")
        self.successResultOf(alice.verifyPlainPassword("x"))
        del authorizer.identities["alice"]
        self.successResultOf(do("addUser", None))
