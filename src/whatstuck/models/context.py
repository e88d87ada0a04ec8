"""What a model can read at once, and what fills the places where there is nothing to read."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase


def positions_of(base: Path) -> int | None:
    """Tokens that the model in a folder can read at once, where it says so."""
    return _positions(AutoConfig.from_pretrained(base, local_files_only=True))


def positions_in(model: PreTrainedModel) -> int | None:
    """Tokens that a loaded model can read at once, where it says so."""
    return _positions(model.config)


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token id for places that are masked out: any would do, so 0 where the tokenizer names none."""
    return tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0


def _positions(config: Any) -> int | None:
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) else None
