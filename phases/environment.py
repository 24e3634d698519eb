"""Where a result was made: versions of what it depends on, and the commit of the code."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def environment() -> dict[str, str]:
    """Versions that a result may depend on, and the commit of the code."""
    packages = ("torch", "transformers", "tokenizers", "accelerate", "peft", "mergekit", "agent-forge")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": code_version(),
        **{name: version(name) for name in packages},
    }


@cache
def code_version() -> str:
    """The git commit of this code, `-dirty` when the tree has changes; `unknown` outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
