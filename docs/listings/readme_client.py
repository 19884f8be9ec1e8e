from twisted.internet.task import react

from pbauth import Login, Unauthorized, connect, connected


async def main(reactor):
    login = Login("tcp:127.0.0.1:8800", "alice", "open sesame", "greetings")
    async with connected(login) as alice:
        print(await alice.callRemote("greet", "Hello"))

    try:
        await connect("127.0.0.1", 8800, "alice", "wrong", "greetings")
    except Unauthorized as refusal:
        print(refusal)


react(main)
