"""The `tipsseg vocab` commands: list, print and check vocabularies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import values
from tipsseg.cli.help import Command, completion_of
from tipsseg.cli.main import Group
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import open_progress
from tipsseg.options.fields import WHAT, option
from tipsseg.util.progress import print_text
from tipsseg.util.text import did_you_mean, pluralize

vocab = typer.Typer(
    cls=Group,
    help="List, print and check vocabularies.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=completion_of("presets"), help="A preset or a vocabulary file.")
]


@vocab.command("list", cls=Command)
def list_presets() -> None:
    """List the presets for --vocab."""
    from tipsseg.vocabulary.files import preset_names, preset_summary, read_vocabulary

    for name in preset_names():
        vocabulary = read_vocabulary(name)
        with_background = " + background" if vocabulary.background else ""
        print_text(f"{name:20} {len(vocabulary.classes):4} classes{with_background:13}  {preset_summary(name)}\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    # fmt: off
    templates: str | None = option(None, metavar="NAME|FILE", group=WHAT, choices=("protocol", "plain"), rare=True,
        help="Prompt templates: protocol, plain, or a file with one per line.  [default: the vocabulary's, or protocol]")
    # fmt: on


@command(app=vocab, no_args_is_help=False)
def show(name: Name, question: Annotated[opt.Question, Only("background")], showing: Showing) -> None:
    """Print a vocabulary as a TOML file, for example as a starting point for your own."""
    from tipsseg.vocabulary.files import vocabulary_toml

    vocabulary, fitted = values.parse_question(replace(question, vocab=name), showing.templates)
    if fitted is not None:
        print_text(f"# The phrases of {name}. Only that file has their vectors and the temperature.\n")
    print_text(vocabulary_toml(vocabulary))


@vocab.command(cls=Command)
def check(name: Name) -> None:
    """Check a vocabulary, and print its classes; an error names the file and the line."""
    from tipsseg.vocabulary.rivals import describe_rivals

    vocabulary, fitted = values.parse_question(opt.Question(vocab=name))
    negative = len(vocabulary.specs) - len(vocabulary.classes)
    phrases = pluralize(len(vocabulary.background), "phrase") if vocabulary.background else "none"
    background = "auto" if vocabulary.auto else phrases
    parts = [
        pluralize(len(vocabulary.classes), "class", "classes"),
        pluralize(len(vocabulary.phrases) - len(vocabulary.background_texts), "phrase"),
        *([f"{negative} negative"] if negative else []),
        f"background {background}",
        pluralize(len(vocabulary.templates), "template"),
        *([f"fitted with the model {fitted.model_id}"] if fitted else []),
    ]
    print_text(f"{name}: ok, {', '.join(parts)}\n")
    with open_progress(False) as progress:
        for text in describe_rivals(vocabulary):
            progress.note(text)
    listed = [spec.name for spec in vocabulary.specs[: vocabulary.listed]]
    for entry in vocabulary.classes:
        facts = [f"({', '.join(entry.synonyms)})"] if entry.synonyms else []
        if entry.part_of:
            facts.append(f"part of {vocabulary.classes[entry.part_of - 1].name}")
        if entry.name not in listed:
            facts += ["a whole that is not listed", did_you_mean(entry.name, listed, 0.8).strip()]
        print_text("  ".join([f"{entry.id:5}", entry.name, *filter(None, facts)]) + "\n")
