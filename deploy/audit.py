"""Looks up known vulnerabilities of locked dependencies: `audit.py PIP_AUDIT LOCK_FILE`.

Exit status: 0 if none is known, 1 if some are, 2 if a dependency could not be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys


def main(pip_audit: str, lock_file: str) -> int:
    """Run pip-audit, print what it found, and return the exit status."""
    options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(  # noqa: S603 - the Makefile's own command
        [pip_audit, *options, "--requirement", lock_file], capture_output=True, text=True, check=False
    )
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (done.stderr.strip() or "pip-audit said nothing").splitlines()[-1]
        sys.stderr.write(f"Not audited: the vulnerability database cannot be reached.\n{reason}\n")
        return 2
    vulnerable = [one for one in dependencies if one.get("vulns")]
    for one in vulnerable:
        for found in one["vulns"]:
            fixed = ", ".join(found.get("fix_versions", ())) or "no version yet"
            sys.stdout.write(f"{one['name']} {one['version']}: {found['id']}, fixed in {fixed}\n")
    unknown = [one["name"] for one in dependencies if "skip_reason" in one]
    if unknown:
        sys.stderr.write(
            f"Not audited: the vulnerability database had no answer for {len(unknown)} of {len(dependencies)} "
            f"dependencies ({', '.join(unknown[:5])}{', ...' if unknown[5:] else ''}). Is PyPI reachable?\n"
        )
    if vulnerable:
        return 1
    if unknown or not dependencies:
        return 2
    sys.stdout.write(f"No known vulnerability in {len(dependencies)} dependencies.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
