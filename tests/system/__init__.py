import tests.support.examples  # noqa: F401 - the profile is for all of these
