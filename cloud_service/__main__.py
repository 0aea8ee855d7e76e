"""Lets ``python -m cloud_service`` be the command, also where it is not installed."""

from cloud_service.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
