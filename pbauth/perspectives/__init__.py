"""Services, perspectives, and the sessions of the clients that are attached to them."""
