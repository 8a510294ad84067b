"""The package's modules import one another in one direction only, imports inside functions included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "resdet"


def modules(root: Path) -> dict[str, Path]:
    files = sorted(root.rglob("*.py"))
    return {".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): path
            for path in files}  # fmt: skip


def imported(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def circle(root: Path) -> list[str]:
    """The modules of one circle of imports, empty where there is none. A package may import its own modules."""
    known = modules(root)

    def others(name: str, path: Path) -> list[str]:
        found = imported(path.read_text("utf-8")) & known.keys()
        return [other for other in found if not f"{name}.".startswith(f"{other}.")]

    graph = {name: others(name, path) for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_through_others():
    assert circle(PACKAGE) == []


def test_a_circle_through_an_import_inside_a_function_is_found(tmp_path: Path):
    root = tmp_path / "house"
    root.mkdir()
    _ = (root / "a.py").write_text("from house import b\n")
    _ = (root / "b.py").write_text("def f():\n    from house.a import g\n")
    assert set(circle(root)) == {"house.a", "house.b"}


def test_rich_prints_from_the_commands_and_the_log_of_a_run_alone():
    users = {name for name, path in modules(PACKAGE).items()
             if any(other.partition(".")[0] == "rich" for other in imported(path.read_text("utf-8")))}  # fmt: skip
    assert {name for name in users if not name.startswith("resdet.cli.")} == {"resdet.engine.log"}
