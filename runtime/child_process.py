"""Processes of ours that live as long as their standard input."""

from __future__ import annotations

import subprocess

ENDS_WITHIN_S = 5.0


def end(process: subprocess.Popen[str]) -> None:
    """Close its input, which ends it; kill it if it does not."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout=ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
