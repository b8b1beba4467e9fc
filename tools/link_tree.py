"""Lay out build/tree/pai as symlinks to the top-level folders.

Type checkers follow no editable finder, so they (and quick local runs with
``PYTHONPATH=build/tree``) read the project through this tree.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("compiler", "frontends", "passes", "dialects", "runtime")


def main() -> None:
    """Create or refresh the symlink tree."""
    tree = ROOT / "build" / "tree" / "pai"
    tree.mkdir(parents=True, exist_ok=True)
    for old in tree.iterdir():
        if old.is_symlink():
            old.unlink()
    for source in (ROOT / "pai").iterdir():
        if source.name != "__pycache__":
            (tree / source.name).symlink_to(source)
    for folder in FOLDERS:
        (tree / folder).symlink_to(ROOT / folder)


if __name__ == "__main__":
    main()
