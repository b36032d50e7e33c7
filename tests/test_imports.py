"""Imports point down: app -> pages -> mpqdm_core, and in the core from whole models to plain arithmetic."""

import ast
import gc
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "mpqdm_core").rglob("*.py"))
PAGES = [*sorted((ROOT / "pages").rglob("*.py")), *ROOT.glob("app.py")]
ABOVE_CORE = {"gradio", "plotly", "pandas", "pages", "app", "benchmarks", "tests"}
# The two lowest layers. What stands above imports what it likes, as long as there is no circle.
FOUNDATION = {"mpqdm_core.errors", "mpqdm_core.progress"}
ARITHMETIC = {
    f"mpqdm_core.{name}"
    for name in (
        "affine",
        "compiled",
        "compiled_rounding",
        "compiled_rows",
        "distribution",
        "grids",
        "intervals",
        "kurtosis",
        "metrics",
        "neighbours",
        "prescale",
        "range_search",
        "row_pass",
    )
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in CORE}


@cache
def syntax(path):
    """Every node of a file's syntax; read once, as many tests ask for the same files."""
    # CPython 3.11 raises SystemError when the collector runs code of its own while a tree is being built.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    finally:
        if collecting:
            gc.enable()


def imports(path):
    """Every (line, module, name) a file imports, inside functions too; name is None for `import module`."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in syntax(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                yield node.lineno, base, alias.name


def core_imports(path):
    """The modules of the core that a file imports."""
    for _, module, name in imports(path):
        whole = f"{module}.{name}"
        if whole in MODULES:
            yield whole
        elif module in MODULES:
            yield module


def test_the_walk_sees_imports_in_functions_and_relative_ones(tmp_path, monkeypatch):
    package = tmp_path / "mpqdm_core" / "allocation"
    package.mkdir(parents=True)
    file = package / "policies.py"
    file.write_text("from ..errors import A\nfrom . import b\ndef f():\n    import gradio.blocks as g\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    found = {(module, name) for _, module, name in imports(file)}
    assert found == {("mpqdm_core.errors", "A"), ("mpqdm_core.allocation", "b"), ("gradio.blocks", None)}


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_the_core_knows_nothing_of_the_page(path):
    upward = [(line, module) for line, module, _ in imports(path) if module.split(".")[0] in ABOVE_CORE]
    assert upward == []


@pytest.mark.parametrize("path", PAGES, ids=module_name)
def test_the_page_imports_neither_tests_nor_benchmarks(path):
    assert [m for _, m, _ in imports(path) if m.split(".")[0] in {"tests", "benchmarks"}] == []


@pytest.mark.parametrize("path", [*CORE, *PAGES], ids=module_name)
def test_private_names_stay_in_their_module(path):
    ours = ("mpqdm_core", "pages")
    borrowed = [
        (line, module, name)
        for line, module, name in imports(path)
        if module.split(".")[0] in ours
        and name
        and name.startswith("_")
        and not name.startswith("__")
        and f"{module}.{name}" not in MODULES
        and not (ROOT / Path(*module.split("."), f"{name}.py")).exists()
    ]
    assert borrowed == []


def test_the_core_has_no_circle():
    graph = {name: set(core_imports(path)) - {name} for name, path in MODULES.items()}
    for name in graph:  # a package's __init__ gathers what its modules offer
        graph[name] = {other for other in graph[name] if not name.startswith(f"{other}.")}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("name", sorted(FOUNDATION | ARITHMETIC))
def test_the_bottom_layers_import_downwards_only(name):
    if name not in MODULES:  # split into a folder of the same idea
        pytest.fail(f"{name} is listed here as a bottom layer but does not exist: update the list")
    allowed = FOUNDATION if name in FOUNDATION else FOUNDATION | ARITHMETIC
    assert set(core_imports(MODULES[name])) <= allowed
