"""What every test and every lesson under test has in common."""

import os

# Stored outputs come from the rendered pictures, offline; a learner's settings are
# theirs and must not decide whether the tests pass.
os.environ["VIT_COURSE_OFFLINE"] = "1"
os.environ.pop("VIT_COURSE_DATA", None)
os.environ.pop("MPLBACKEND", None)
