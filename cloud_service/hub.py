"""Fetches a model's files from the Hugging Face hub: data only, never code or pickles."""

from pathlib import Path

from huggingface_hub import snapshot_download

# The base of what its HTTP client raises, whichever client that release uses.
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from cloud_service.backbones.tokens import first_line
from cloud_service.errors import PullFailed
from cloud_service.packages import Say

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


def fetch_snapshot(hub_id: str, folder: Path, say: Say) -> Path:
    """
    Download a model into ``folder`` and return it; what is there already is not fetched again.

    Raises:
        PullFailed: The hub cannot be reached, or has no such model for this person.

    """
    say(f"downloading {hub_id} from the hub")
    try:
        snapshot_download(hub_id, local_dir=folder, allow_patterns=list(WANTED))
    except (HTTPError, OSError, ValueError) as error:
        raise PullFailed(
            f"{hub_id} could not be fetched from the hub: {first_line(error)}",
            "Check the name and the network, then run the same command again; it continues.",
        ) from None
    return folder
