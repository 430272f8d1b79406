"""What several test files ask for by name."""

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Small tensors are done sooner by one thread, and always in the same order."""
    import torch  # here: who looks only at texts and notebooks does without

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the tests of the site and of JupyterLab."""
    from browsing import chromium  # only these two need Playwright

    with chromium() as browser:
        yield browser
