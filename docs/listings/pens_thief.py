"""Two attempts to get at a pen that was given to somebody else."""

from twisted.internet.defer import DeferredList
from twisted.internet.task import react
from twisted.spread import pb


async def connect(reactor):
    factory = pb.PBClientFactory()
    reactor.connectTCP("127.0.0.1", 8800, factory)
    return await factory.getRootObject()


async def main(reactor):
    bobsDesk = await connect(reactor)
    bobsPen = await bobsDesk.callRemote("givePen", "bob")

    mallorysDesk = await connect(reactor)
    print("Bob hands his pen to Mallory, who shows it to the server as her own:")
    try:
        await mallorysDesk.callRemote("givePen", bobsPen)
    except AssertionError:
        print("  refused before anything was sent: a reference is good on its own connection")

    print("Mallory makes up a reference, with each number from 1 to 1000:")
    broker = mallorysDesk.broker
    guesses = [pb.RemoteReference(None, broker, number, True) for number in range(1, 1001)]
    calls = [each.callRemote("write", "i am bob") for each in guesses]
    answers = await DeferredList(calls, consumeErrors=True)
    print("  pens found:", sum(worked for worked, _ in answers))


react(main)
