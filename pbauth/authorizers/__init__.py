"""Authorizers that keep their identities elsewhere than in memory."""
