"""What holds for every test."""

import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, and the programs that the tests start
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
