"""
What can stop a benchmark, each in one sentence for the person who started it.

* BenchmarkError
  * TextError
  * ProcessFailed
  * ArmsDisagree
"""


class BenchmarkError(Exception):
    """The benchmark cannot give its figures; the message says why and what to do."""


class TextError(BenchmarkError):
    """The private text is missing, malformed, or too short to be cut."""


class ProcessFailed(BenchmarkError):
    """A process of the benchmark ended with an error or never became ready."""


class ArmsDisagree(BenchmarkError):
    """Two arms did not see the same tokens, so their figures cannot be compared."""
