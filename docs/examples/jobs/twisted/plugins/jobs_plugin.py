"""Lets ``twistd pbauth --service jobs`` find the service, where it is started from this folder."""

from dispatcher import JobsServiceFactory

jobs = JobsServiceFactory()
