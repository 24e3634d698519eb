"""Which code made a result: a hash over a module and everything of ours that it imports, however deep.

    source_fingerprint("phases.baking.run")

Comments, docstrings and layout do not count: they change no result, and an hour of training should outlive a better
word. Imports inside functions count like those at the top, and so do scripts that are named (`"runner.py"`).
"""

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

OURS = ("phases", "evaluation", "distillation")
"""Packages whose code makes or measures results. What others do is in the checkpoint's environment."""


@cache
def source_fingerprint(module: str) -> str:
    """SHA-256 over the code of `module` and of every module of `OURS` that it imports."""
    code = read_code(module)
    return hashlib.sha256(b"\0".join(name.encode() + b"\0" + code[name] for name in sorted(code))).hexdigest()


def read_code(module: str) -> dict[str, bytes]:
    """The code of `module` and of every module of `OURS` that it imports, by name."""
    seen: dict[str, bytes] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        found = None if name in seen else _read(name)
        if found is not None:
            seen[name], imported = found
            queue += imported
    return seen


@cache
def _read(name: str) -> tuple[bytes, list[str]] | None:
    """The code of one module and what it imports; None for what is not ours. Modules share most of what they import."""
    spec = _find(name)
    if spec is None or spec.origin is None:
        return None
    tree = _WithoutTexts().visit(ast.parse(Path(spec.origin).read_bytes()))
    package = name if spec.submodule_search_locations else name.rpartition(".")[0]
    return ast.dump(tree).encode(), [name.rpartition(".")[0], *_imports(tree, package)]


class _WithoutTexts(ast.NodeTransformer):
    """Takes out strings that stand alone: docstrings, and texts under fields."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """The statement, unless it is a text."""
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _find(name: str) -> Any:
    if name.split(".")[0] not in OURS:
        return None
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None  # `from phases.x import function` also yields the candidate name phases.x.function


def _imports(tree: ast.Module, package: str) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".py"):
            script = node.value.removesuffix(".py")  # run as a process of its own
            names += [f"{package}.{script}"] if script.isidentifier() else []
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                root = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*root, base] if base else root)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names
