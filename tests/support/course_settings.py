"""Settings of every test and of every lesson under test; a plugin of pytest.

`addopts` in pyproject.toml loads it, so that it holds for `pytest tests` and for
`pytest --nbval notebooks/...` alike. A conftest.py in tests/ would not reach
notebooks/.
"""

import os

# Stored outputs come from the rendered images, offline; a learner's settings are
# theirs and must not decide whether the tests pass.
os.environ["VIT_COURSE_OFFLINE"] = "1"
os.environ.pop("VIT_COURSE_DATA", None)
os.environ.pop("MPLBACKEND", None)
