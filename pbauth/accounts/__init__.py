"""Identities, the authorizer that finds them, and how passwords become verifiers."""
