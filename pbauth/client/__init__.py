"""The client's half of a login, and the client that stays logged in."""
