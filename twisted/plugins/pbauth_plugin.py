"""What Twisted finds by itself: ``twistd pbauth``, and the services that come with pbauth."""

from twisted.application.service import ServiceMaker

from pbauth.echo import EchoServiceFactory

pbauth = ServiceMaker(
    "pbauth",
    "pbauth.tap",
    "A server of perspectives for identities that log in.",
    "pbauth",
)

echo = EchoServiceFactory()
