"""What several tests of the adapters share."""

import pytest


@pytest.fixture
def kinds():
    """Samplers and edits of every kind, registered while a test runs."""
    import scheduler_kinds

    with scheduler_kinds.registered():
        yield
