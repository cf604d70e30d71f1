"""TensorFlow's logical devices must be there before a test makes its first tensor."""

import sys


def pytest_collection_finish() -> None:
    """Whoever imports TensorFlow at the top of a test file gets several logical devices."""
    if "tensorflow" in sys.modules:
        from baechi.backends.tf.devices import ensure_devices

        ensure_devices()
