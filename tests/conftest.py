"""What all tests share."""

import os

os.environ.setdefault("TURNCOAT_TRACKING", "off")  # the tests of tracking turn it on for themselves
