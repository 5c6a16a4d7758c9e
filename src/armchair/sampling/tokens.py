"""Draw image tokens."""


def sample(*args, **kwargs):
    raise NotImplementedError
