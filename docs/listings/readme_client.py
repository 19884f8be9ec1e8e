from twisted.internet.task import react

from pbauth import Login, Unauthorized, connected


async def main(reactor):
    login = Login("tcp:127.0.0.1:8800", "alice", "open sesame", "greetings")
    try:
        async with connected(login) as alice:
            print(await alice.callRemote("greet", "Hello"))
    except Unauthorized as refusal:
        print(refusal)


react(main)
