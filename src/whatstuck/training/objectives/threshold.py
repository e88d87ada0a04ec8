"""The threshold of SED-SFT, from what the model at the start is sure of.

The paper's script takes the value that 70 % of the positions of the first 100 validation sequences reach. It sums 10
probabilities there and 2 in the training; here it is the same number in both.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.masked import accepted_options
from whatstuck.training._tokens import IGNORED
from whatstuck.training.objectives.tokens import top_mass

ROWS = 100


@torch.inference_mode()
def top_mass_threshold(
    model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], *, k: int = 10, ratio: float = 0.7
) -> float:
    """The largest tau that a share of the supervised positions reaches.

    Args:
        model: The model at the start, in eval mode.
        rows: Held-out rows in the format of the training: `input_ids`, and `labels` that are -100 on the prompt. The
            first 100 count.
        k: Tokens whose probabilities are summed.
        ratio: The share.

    Returns:
        A probability. The positions below it, at most `1 - ratio` of them, are those that SED-SFT regularizes.

    Raises:
        WhatStuckError: If there is no row.
    """
    masses: list[torch.Tensor] = []
    for row in rows[:ROWS]:
        learned = [at for at in range(1, len(row["labels"])) if row["labels"][at] != IGNORED]
        if not learned:
            continue
        keep = len(row["labels"]) - learned[0] + 1
        ids = torch.tensor([row["input_ids"]], device=model.device)
        options = accepted_options(model, logits_to_keep=keep)
        logits = model(input_ids=ids, use_cache=False, **options).logits[0, -keep:]
        # what stands at a position is predicted one before it
        at = torch.tensor(learned, device=logits.device) - (len(row["labels"]) - keep) - 1
        masses.append(top_mass(logits[at].float().log_softmax(-1), k).cpu())
    if not masses:
        raise WhatStuckError("the objective sed finds tau on held-out rows and there are none: give heldout, or tau")
    ordered = torch.cat(masses).sort(descending=True).values
    return float(ordered[math.ceil(ratio * len(ordered)) - 1])
