"""The person's side: a light process, which takes nothing with it that it does not need."""

import sys

# httpx takes its own command line with it wherever that can be imported: 5 MB of each process, a fifth of its start.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
