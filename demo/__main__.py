"""A person teaches their device, and a model they could never run becomes theirs: before, after, and what it cost."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.errors import BenchmarkError
from demo import material, report, story


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--text", type=Path, help="your own writing instead of the built-in one")
    parser.add_argument(
        "--device-python",
        default=sys.executable,
        help="the interpreter the device runs in (make demo gives one without torch)",
    )
    parser.add_argument("--backbone", default="smollm2-135m-instruct", help="a pulled backbone")
    parser.add_argument("--seed", type=int, default=0, help="which synthetic person")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="picture and JSON")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="sideplug-demo-"))
    try:
        lesson = material.own(given.text) if given.text else material.built_in(given.seed)
        outcome = story.tell(lesson, given.backbone, given.device_python, home)
        report.show(lesson, outcome, given.output)
    except BenchmarkError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped; nothing is left running", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
