"""Keep habits out of prose that a pattern finds: of pages, help, messages, docstrings and comments. Names and code are free."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import tipsseg

TOP = Path(tipsseg.__file__).parent
REPOSITORY = Path(__file__).resolve().parents[1]

_QUESTION = re.compile(r"(What|Whether|How)\b")
_HABIT = re.compile(r"\b(is|are|was|were) no (?!longer\b|more than\b)|\bthere (is|are) (no|not)\b", re.IGNORECASE)

Text = tuple[str, str]


def read_texts(source: str, place: str) -> tuple[list[Text], list[Text]]:
    """Return the docstrings and the other string constants of a module, with their places."""
    docstrings: list[Text] = []
    constants: list[Text] = []
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                skipped.add(id(first.value))
                docstrings.append((f"{place}:{node.body[0].lineno}", str(first.value.value).strip()))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            constants.append((f"{place}:{node.lineno}", node.value))
    return docstrings, constants


def all_texts() -> Iterator[tuple[list[Text], list[Text]]]:
    for path in sorted(TOP.rglob("*.py")):
        yield read_texts(path.read_text("utf-8"), str(path.relative_to(TOP)))


DOCSTRINGS = [text for docstrings, _ in all_texts() for text in docstrings]
MESSAGES = [text for _, constants in all_texts() for text in constants]


def test_docstrings_do_not_begin_with_a_question() -> None:
    assert len(DOCSTRINGS) > 500
    assert [text for text in DOCSTRINGS if _QUESTION.match(text[1])] == []


def test_messages_say_is_not_a() -> None:
    assert len(MESSAGES) > 1000
    assert [text for text in MESSAGES if _HABIT.search(text[1])] == []


# ---- habits ----

#: The kinds of texts.
_PAGES, _PRINTED, _DOCSTRINGS, _COMMENTS = "pages", "messages and help", "docstrings", "comments"
_ALL = (_PAGES, _PRINTED, _DOCSTRINGS, _COMMENTS)

_TOOL = r"(Label Studio|SAM|CVAT|LabelMe|FiftyOne|YOLO|Datumaro|transformers)\b(?!-)"

#: A pattern, the kinds of texts that it is kept out of, and what to write instead.
HABITS = {
    "truth": (r"(?<!ground[ -])(?<!\{)\btruths?\b", _ALL, "the field says ground truth"),
    "default": (r"\[default: as\b", (_PRINTED,), "give the value; an existing folder keeps its value"),
    "of a tool": (rf"\b[a-z]+s? of {_TOOL}\b(?!'s|\.)", (_PAGES, _PRINTED), "Label Studio projects, SAM masks"),
    "that exist": (r"\bthat (exist|you need)\b", _ALL, "existing labels; the formats you need"),
    "those of": (r"\b(those|that) of\b", _ALL, "repeat the noun"),
    "name it": (
        r"(^|[.:;,] )(or )?name (the|an?|images|it|them|one|each)\b",
        (_PAGES, _PRINTED),
        "pass: names are classes",
    ),
    "remove it": (r", or (remove|pass|drop) (it|them)\b", (_PAGES, _PRINTED), "name the option or the file"),
    "needs": (r"\bneeds?\b(?! not)", (_PRINTED,), "requires, with the full object"),
    "; or": (r"; or\b", (_PRINTED, _DOCSTRINGS, _COMMENTS), "two sentences, or a comma"),
    ", see": (r", see `", (_DOCSTRINGS, _COMMENTS), "(see `name`)"),
    "mood": (r"(?-i:(^|\. |\n *)Raises [A-Z]\w+Error\b)", (_DOCSTRINGS,), "Raise, as the summary"),
    "words": (r"\b(anew|at hand|asked for|refus(e|es|ed|ing))\b", _ALL, "again, available, requested, reject"),
}


def read_prose(kind: str) -> Iterator[Text]:
    """Yield texts of a kind with their places, without what is no prose: code, flags, names of arguments."""
    if kind == _PAGES:
        for path in sorted(REPOSITORY.rglob("*.md")):
            folders = path.relative_to(REPOSITORY).parts[:-1]
            if not {".venv", "work", "out", "build", "site-packages"} & set(folders):
                text = re.sub(r"(?ms)^```.*?^```|\]\([^)]*\)", "", path.read_text("utf-8"))
                text = re.sub(r"`[^`\n]*`", "`x`", text)
                yield from ((str(path.relative_to(REPOSITORY)), each) for each in re.split(r"\n\s*\n", text))
        return
    for path in sorted(TOP.rglob("*.py")):
        source, place = path.read_text("utf-8"), str(path.relative_to(TOP))
        if kind == _COMMENTS:
            tokens = tokenize.generate_tokens(io.StringIO(source).readline)
            texts = [(f"{place}:{each.start[0]}", each.string) for each in tokens if each.type == tokenize.COMMENT]
        else:
            texts = read_texts(source, place)[kind == _PRINTED]
        for where, text in texts:
            if " " in text:
                yield where, re.sub(r"(?m)^ *\w+(?=: )|`[^`\n]*`|(?<!\w)--[\w-]+|\w+\.\w+", "`x`", text)


@pytest.mark.parametrize("name", HABITS)
def test_prose_is_free_of_habits(name: str) -> None:
    pattern, kinds, instead = HABITS[name]
    found = [
        f"{where}: ...{' '.join(text[max(match.start() - 40, 0) : match.end() + 40].split())}..."
        for kind in kinds
        for where, text in read_prose(kind)
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert not found, "\n".join([f"Write instead: {instead}", *found])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("truth", "the truth masks"), ("default", "[default: as already in the folder]"), ("of a tool", "masks of SAM"),
        ("that exist", "labels that exist"), ("those of", "are those of the run"), ("name it", "Name images, or"),
        ("remove it", "Name images, or remove it."), ("needs", "it needs polygons"), ("; or", "None; or a list"),
        (", see", "a grid, see `Grid`"), ("mood", "Read it. Raises ImageError."), ("words", "written anew"),
    ],
)  # fmt: skip
def test_habits_are_found(name: str, text: str) -> None:
    assert re.search(HABITS[name][0], text, re.IGNORECASE)


# ---- names in backticks ----

_POINTER = re.compile(r"`(\w+)\.(\w+)(?:\(\))?`")


def read_names() -> tuple[dict[str, set[str]], dict[str, set[str]], set[str]]:
    """Return the names in each module and class by its name, and all functions and classes of modules."""
    modules: dict[str, set[str]] = {}
    classes: dict[str, set[str]] = {}
    public: set[str] = set()
    for path in TOP.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        own = modules.setdefault(path.parent.name if path.stem == "__init__" else path.stem, set())
        own |= names_in(tree)
        public |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, set()).update(names_in(node))
    for path in (TOP, *TOP.rglob("*/")):
        modules.setdefault(path.name, set()).update(each.stem for each in path.glob("*.py"))
    return modules, classes, public


def test_a_public_name_stands_in_one_module() -> None:
    """But for the functions that each architecture has, the verbs, which are named after commands, and the types of options."""
    homes: dict[str, set[str]] = {}
    for path in TOP.rglob("*.py"):
        if path.parent != TOP / "verbs" and path.name not in ("verb.py", "declared.py"):
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.AugAssign):  # the notes of a plugin
                    continue
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                stored = [each for target in targets if target is not None for each in ast.walk(target)]
                names = {each.id for each in stored if isinstance(each, ast.Name)}
                names |= {node.name} if isinstance(node, ast.FunctionDef | ast.ClassDef) else set()
                for name in names:
                    homes.setdefault(name, set()).add(str(path.relative_to(TOP)))
    both = {"main", "TYPE_CHECKING", "read_sizes", "open_backbone"}
    twice = {name: found for name, found in homes.items() if len(found) > 1 and not name.startswith("_")}
    assert twice.keys() <= both, twice


def names_in(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        for name in ("name", "id", "attr", "arg"):
            if isinstance(text := getattr(node, name, None), str):
                found.add(text)
    return found


def test_names_in_backticks_exist() -> None:
    """A pointer such as `module.function` or `Class.attribute`, where it names one of our modules, classes or functions."""
    modules, classes, public = read_names()

    def is_there(owner: str, name: str) -> bool:
        if owner in classes:
            todo, seen = [owner], set[str]()
            while todo:
                here = todo.pop()
                seen.add(here)
                if name in classes[here]:
                    return True
                todo += (classes[here] & classes.keys()) - seen
            return name in modules.get(owner, ())
        if owner in modules:  # or a variable of that name
            return name in modules[owner] or any(name in names for names in classes.values())
        return name not in public

    found = [
        (str(path.relative_to(TOP)), *pair) for path in TOP.rglob("*.py") for pair in _POINTER.findall(path.read_text())
    ]
    assert len(found) > 100
    assert [each for each in found if not is_there(*each[1:])] == []
