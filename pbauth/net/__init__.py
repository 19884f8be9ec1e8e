"""Addresses, endpoints, certificates, and which servers a client trusts."""
