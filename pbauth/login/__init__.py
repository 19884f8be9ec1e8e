"""The server's half of a login: policy, throttle, negotiation, and the chain of objects."""
