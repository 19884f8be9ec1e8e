"""Accounts in a passwd file."""
