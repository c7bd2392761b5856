"""Property tests draw the same examples every time: a flaky test is a bug."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")
