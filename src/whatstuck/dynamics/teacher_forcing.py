"""How well a model predicts the tokens it was, or could have been, trained on: one plain pass, no generation.

Logits are made for the predicted positions only, so that long prompts cost no memory. Rows are padded on the left: then
completions, which are what is predicted nearly always, end together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from whatstuck.interactions.coalitions import accepted_options

BATCH_SIZE = 16
_LOGIT_BYTES = 1 << 29  # of one batch; vocabularies are large


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row as tokens.

    Attributes:
        ids: All tokens.
        predicted: Positions of those that are predicted, ascending, none of them the first.
    """

    ids: tuple[int, ...]
    predicted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenScores:
    """How the predicted tokens of a row fare.

    Attributes:
        nll: Mean negative log-likelihood, nats.
        accuracy: Share of tokens that are the most likely ones (Tirumala et al. 2022: exact memorization).
        smallest_margin: Least difference of logits to the best other token.
        mean_margin: Their mean (as AUM, Pleiss et al. 2020).
    """

    nll: float
    accuracy: float
    smallest_margin: float
    mean_margin: float

    @property
    def correct(self) -> bool:
        """Whether greedy decoding would begin with exactly these tokens."""
        return self.accuracy == 1.0


@torch.inference_mode()
def score_tokens(model: PreTrainedModel, rows: Sequence[TokenRow], pad_token_id: int) -> list[TokenScores]:
    """Score rows in batches of similar length.

    Args:
        model: A causal language model in eval mode.
        rows: The rows.
        pad_token_id: Any token id; padding is masked out.

    Returns:
        Scores in the order of the rows.
    """
    by_length = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    vocabulary = int(model.config.get_text_config().vocab_size)
    scores: dict[int, TokenScores] = {}
    start = 0
    while start < len(by_length):
        members = by_length[start : start + BATCH_SIZE]
        while len(members) > 1 and len(members) * _span(rows, members) * vocabulary * 4 > _LOGIT_BYTES:
            members = members[: len(members) // 2]
        scores |= zip(members, _batch(model, [rows[i] for i in members], pad_token_id), strict=True)
        start += len(members)
    return [scores[i] for i in range(len(rows))]


def _span(rows: Sequence[TokenRow], members: Sequence[int]) -> int:
    """Positions from the first predicted one of a batch to its end."""
    return max(len(rows[i].ids) - rows[i].predicted[0] for i in members) + 1


def _batch(model: PreTrainedModel, rows: Sequence[TokenRow], pad_token_id: int) -> list[TokenScores]:
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_token_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, width - len(row.ids) :] = torch.tensor(row.ids)
        mask[index, width - len(row.ids) :] = 1
    keep = _span(rows, range(len(rows)))
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    options = accepted_options(model, position_ids=positions, logits_to_keep=keep)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits[:, -keep:]
    results = []
    for index, row in enumerate(rows):
        # what stands at position p is predicted one before it
        where = torch.tensor(row.predicted, device=logits.device) + (keep - len(row.ids) - 1)
        predicted = logits[index, where].double()  # (m, vocabulary)
        target = torch.tensor([row.ids[p] for p in row.predicted], device=logits.device)[:, None]
        own = predicted.gather(-1, target)
        nll = (predicted.logsumexp(-1, keepdim=True) - own).mean()
        margin = own - predicted.scatter(-1, target, -torch.inf).amax(-1, keepdim=True)
        # a tie is decided as greedy decoding decides it
        accuracy = (predicted.argmax(-1, keepdim=True) == target).double().mean()
        results.append(TokenScores(float(nll), float(accuracy), float(margin.min()), float(margin.mean())))
    return results
