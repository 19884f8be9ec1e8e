"""
What Twisted finds by itself: ``twistd pbauth``, the services that come with pbauth, and PAM for
``--auth``.
"""

from twisted.application.service import ServiceMaker

from pbauth.cred.pam import PAMCheckerFactory
from pbauth.echo import EchoServiceFactory

pbauth = ServiceMaker(
    "pbauth",
    "pbauth.tap",
    "A server of perspectives for identities that log in.",
    "pbauth",
)

echo = EchoServiceFactory()

pam = PAMCheckerFactory()
