"""The key by which a federation's server knows this device."""

from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.atomic import write_whole
from device_agent.errors import DeviceError
from device_agent.federated.shared import FOLDER

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

FILE = "key.pem"


class DamagedKey(DeviceError):
    """The key cannot be read."""

    hint = "Move the file away and make another with `sideplug federate key`; the server has to be told it."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be used: {reason}")


def find_key(home: Path) -> "EllipticCurvePrivateKey | None":
    """The private key; None when none was made. Raises DamagedKey."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = home / FOLDER / FILE
    if not path.is_file():
        return None
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise DamagedKey(path, str(error)) from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise DamagedKey(path, "it is no key on an elliptic curve")
    return key


def make_key(home: Path) -> "EllipticCurvePrivateKey":
    """The private key, made when there is none; readable by its owner alone."""
    from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes

    found = find_key(home)
    if found is None:
        found, _ = generate_key_pairs()
        write_whole(home / FOLDER / FILE, private_key_to_bytes(found))
    return found


def public_text(key: "EllipticCurvePrivateKey") -> str:
    """The public key as PEM."""
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    return public_key_to_bytes(key.public_key()).decode()
