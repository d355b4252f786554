from __future__ import annotations

from pathlib import Path

import pytest

from tipsseg.backbones.tipsv2.text import Tokenizer


@pytest.fixture
def tokenizer(mlp_checkpoint: Path) -> Tokenizer:
    return Tokenizer(mlp_checkpoint / "tokenizer.model", 64)


def test_texts_are_lower_cased(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("A Photo Of A PANDA") == tokenizer.encode("a photo of a panda")
    assert tokenizer.encode("ÉCOLE") == tokenizer.encode("école"), "by the rules of Unicode"


def test_there_is_no_beginning_or_end_mark(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("panda")) == 1
    assert tokenizer.encode("") == []


def test_every_text_is_truncated_on_its_own(tokenizer: Tokenizer) -> None:
    long = " ".join(["panda"] * 100)
    exact = " ".join(["panda"] * 64)
    tokens = tokenizer(["tree", long, "", exact])
    assert tokens.lengths.tolist() == [1, 64, 0, 64]
    assert tokens.ids.shape == (4, 64)
    assert tokens.ids[0].tolist() == tokenizer.encode("tree") + [0] * 63
    assert tokens.ids[1].tolist() == tokens.ids[3].tolist()
    assert tokens.ids[2].eq(0).all()


def test_unknown_characters_become_the_unknown_piece(tokenizer: Tokenizer) -> None:
    assert 1 in tokenizer.encode("熊猫")
