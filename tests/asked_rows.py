"""Training rows made by hand, for tests that ask models."""

from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Message, Row, render, row_hash, target_ids
from whatstuck.rows.material import TrainingRow


def made(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | tuple[Message, ...],
    completion: str,
    *,
    chat_template: str = "auto",
    row_id: str = "",
) -> TrainingRow:
    """A row as it is asked; what was fed of it is not known."""
    messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    row = Row(row_id or row_hash(messages, completion), messages, completion, 0, "train")
    rendered = render(row, tokenizer, chat_template=chat_template)
    ids = tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
    return TrainingRow(row, rendered, tuple(ids), tuple(target_ids(rendered, tokenizer)), None)
