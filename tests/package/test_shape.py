"""The shape of the package: no class holds many fields of its own, and no name means two classes of the log."""

from __future__ import annotations

import ast
from pathlib import Path

import walsvc

PACKAGE = Path(walsvc.__file__).parent
FIELDS_MAX = 15
ROOMS = ("disk", "engines", "format", "log", "topics")


def is_value(each: ast.ClassDef) -> bool:
    """A frozen dataclass, a NamedTuple or a TypedDict."""
    bases = {ast.unparse(base) for base in each.bases}
    frozen = any("frozen=True" in ast.unparse(decorator) for decorator in each.decorator_list)
    return frozen or bool(bases & {"NamedTuple", "TypedDict", "CommonOptions"})


def own_fields(each: ast.ClassDef) -> set[str]:
    """The names that a class declares, or that its methods assign on `self`."""
    declared = {
        node.target.id for node in each.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assigned = {
        node.attr
        for node in ast.walk(each)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return declared | assigned


def test_no_class_has_more_than_fifteen_fields_of_its_own() -> None:
    counted = {
        f"{path.relative_to(PACKAGE)} {node.name}": len(own_fields(node))
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not is_value(node)
    }
    assert len(counted) > 300
    assert all(counted[f"log/commit/{name}"] > 10 for name in ("group.py Group", "segment.py Segment")), "it counts"
    assert {name: count for name, count in counted.items() if count > FIELDS_MAX} == {}


def test_no_two_classes_of_the_log_have_one_name() -> None:
    where: dict[str, list[str]] = {}
    for room in ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    where.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert len(where) > 200
    assert {name: files for name, files in where.items() if len(files) > 1} == {}
