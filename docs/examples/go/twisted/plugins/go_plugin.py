"""Lets ``twistd pbauth --service go`` find the Go service, where it is started from this folder."""

from goservice import GoServiceFactory

go = GoServiceFactory()
