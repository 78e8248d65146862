"""Prints pytest's counts of every tox environment, and their sum in the last line."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main():
    total = {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
    for report in sorted(Path(sys.argv[1]).glob("*.xml")):
        suite = ET.parse(report).getroot().find("testsuite").attrib
        failed = int(suite["failures"]) + int(suite["errors"])
        skipped = int(suite["skipped"])
        counts = {
            "passed": int(suite["tests"]) - failed - skipped,
            "failed": failed,
            "skipped": skipped,
            "seconds": float(suite["time"]),
        }
        print(f"{report.stem}: {line(counts)}")
        total = {key: total[key] + counts[key] for key in total}
    print(line(total))
    return 1 if total["failed"] else 0


def line(counts):
    return "{passed} passed, {failed} failed, {skipped} skipped in {seconds:.0f} s".format(**counts)


sys.exit(main())
