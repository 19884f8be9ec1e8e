"""Accounts in a database: SQLite or PostgreSQL."""
