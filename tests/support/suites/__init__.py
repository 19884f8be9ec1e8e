"""Behaviour that several implementations share, as tests."""
