"""What an administrator can do, on a store at hand or on a running server."""
