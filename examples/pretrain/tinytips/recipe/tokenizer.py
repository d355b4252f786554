"""The tokenizer of the embedded model: SentencePiece, trained on the words of the drawn world and on captions of its scenes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceTrainer

from tinytips.world.captions import captions
from tinytips.world.concepts import ABSENT_WORDS, CONCEPTS
from tinytips.world.scenes import draw_scene
from tipsseg.vocabulary.phrases import GENERAL_BACKGROUND, PROTOCOL_TEMPLATES


def train_tokenizer(path: Path) -> None:
    """BPE with pad 0 and unk 1, no BOS or EOS, as in the released models; every letter and mark is a piece of its own."""
    words = [wording for concept in CONCEPTS for wording in concept.wordings]
    words += [*GENERAL_BACKGROUND, *ABSENT_WORDS]
    corpus = [template.format(word) for word in words for template in ("{}", *PROTOCOL_TEMPLATES)]
    for seed in range(600):
        texts = captions(draw_scene(seed, 42, 60), np.random.default_rng(seed))
        corpus += [texts.alt, texts.medium, texts.long]
    corpus += ["the quick brown fox jumps over the lazy dog", "0 1 2 3 4 5 6 7 8 9", ". , ; : ! ? ' \" - ( ) / &"] * 20
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=model,
        model_type="bpe",
        vocab_size=1200,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
