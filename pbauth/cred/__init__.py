"""Bridges to twisted.cred: passwords that PAM or a checker knows, accounts for other servers."""
