"""A federation over the teaching kit as a process of its own: FOLDER PORT PLAN_JSON.

The kit is not one that the cloud compiles, so the command's own way to it is left out; what remains is all.
"""

import json
import logging
import sys
from pathlib import Path

from safetensors.numpy import load_file

from cloud_service.federated.plan import Plan
from cloud_service.federated.record import Record
from cloud_service.federated.rounds import Federation
from cloud_service.federated.superlink import Address, keys_in, serving
from protocol.kit import KitManifest


def main(folder: Path, port: int, plan: Plan) -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    manifest = KitManifest.from_json(json.loads((folder / "manifest.json").read_text()))
    initial = load_file(folder / "initial.safetensors")
    admit = folder / "admitted.pem"
    admitted = keys_in(admit) if admit.is_file() else None
    record = Record(folder / "record", manifest.id, plan)

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def tell(result: object) -> None:
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()

    with serving(Address("127.0.0.1", port), admitted, 2**20) as link:
        tell({"url": link.url})
        tell(Federation(link, manifest, initial, plan, record, say).run())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Plan(**json.loads(sys.argv[3])))
