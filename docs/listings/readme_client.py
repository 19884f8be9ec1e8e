from twisted.internet.task import react

from pbauth import Unauthorized, connect


async def main(reactor):
    alice = await connect("127.0.0.1", 8800, "alice", "open sesame", "greetings")
    print(await alice.callRemote("greet", "Hello"))
    alice.broker.transport.loseConnection()

    try:
        await connect("127.0.0.1", 8800, "alice", "wrong", "greetings")
    except Unauthorized as refusal:
        print(refusal)


react(main)
