"""The Markdown pages: their Python is Python, what they import from kdiff is there, and their links
lead somewhere."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("kdiff/assets/**/*.md")])
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in PAGES}


def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def names_of_kdiff(code):
    """(module, name) of each import from kdiff, and of each `kdiff.name` that is used."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kdiff":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "kdiff":
            yield "kdiff", node.attr


def anchors(text):
    """What GitHub makes of the headings."""
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        yield plain.replace(" ", "-")


def broken_links(page, texts, root):
    text = re.sub(r"^```.*?^```|^    .*?$|`[^`\n]*`", "", texts[page], flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (root / page).parent / file if file else root / page
        name = str(path.resolve().relative_to(root)) if path.exists() else None
        if name is None or (anchor and anchor not in anchors(texts.get(name, ""))):
            yield target


@pytest.mark.parametrize("page", TEXTS)
def test_the_python_of_a_page_names_what_there_is(page):
    for code in python_blocks(TEXTS[page]):
        for module, name in names_of_kdiff(code):
            found = import_module(module)
            assert hasattr(found, name) or import_module(f"{module}.{name}"), (module, name)


@pytest.mark.parametrize("page", TEXTS)
def test_the_links_of_a_page_lead_somewhere(page):
    assert list(broken_links(page, TEXTS, ROOT)) == []


def test_the_page_on_guidance_runs(capsys):
    scope = {}
    for code in python_blocks(TEXTS["docs/guidance.md"]):
        exec(code, scope)
    assert scope["images"].shape == (2, 1, 28, 28)
    asked, answered, evaluated, *_ = capsys.readouterr().out.split()
    assert (asked, answered, evaluated) == ("10", "10", "20")


def test_the_page_on_classifiers_runs():
    scope = {}
    for code in python_blocks(TEXTS["docs/guidance-classifiers.md"]):
        exec(code, scope)
    assert scope["images"].shape == (2, 1, 28, 28)


def defaults_in_table(text):
    """name -> the options and values that its row says, as (`option` value), of guidance."""
    for row in re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", text, re.M):
        yield row[0], dict(re.findall(r"`(\w+)` ([\w.+-]+)", row[1]))


def test_the_table_of_guidance_has_each_and_its_defaults():
    from kdiff.guidance import GUIDANCE

    table = dict(defaults_in_table(TEXTS["docs/guidance.md"]))
    assert set(GUIDANCE) <= set(table)
    for name in GUIDANCE:
        declared = {key: option.default for key, option in GUIDANCE[name].options.items()}
        for key, said in table[name].items():
            assert str(declared[key]) in (said, f"{said}.0"), (name, key)


def test_a_broken_link_is_found(tmp_path):
    page = "# One `two`\n[a](page.md#one-two) [b](page.md#three) [c](none.md) [d](#one-two)\n"
    (tmp_path / "page.md").write_text(page)
    texts = {"page.md": page}
    assert list(broken_links("page.md", texts, tmp_path)) == ["page.md#three", "none.md"]
