"""The tables that `rows` and `intervene` leave in a run folder; docs/run-folder.md describes their columns."""

import pyarrow as pa

EVIDENCE = pa.struct(
    [
        ("cause", pa.string()),
        ("status", pa.string()),  # present, absent, not_measured
        ("score", pa.float64()),  # 0 to 1; null where not measured
        ("numbers", pa.string()),  # JSON: what the status rests on
        ("sentence", pa.string()),
    ]
)

VERDICTS = pa.schema(
    [
        ("row_id", pa.string()),
        ("source_index", pa.int64()),
        ("prompt", pa.string()),  # content of the last user message
        ("gold", pa.string()),
        ("verdict", pa.string()),  # learned, unstable, unlearned, not_asked
        ("form", pa.string()),  # screened (learned by the screen, not asked), generated, choices (of long answers)
        ("asked_because", pa.string()),  # screen, audit, not_trained, or empty
        ("not_asked", pa.string()),  # why it could not be asked; mostly empty
        ("samples", pa.int64()),  # of the finished model, drawn; 0 where not asked
        ("right", pa.int64()),
        ("first_right", pa.int64()),  # of the first five
        ("greedy_right", pa.bool_()),
        ("rate", pa.float64()),  # success rate; of choices, the probability of the right one
        ("rate_low", pa.float64()),
        ("rate_high", pa.float64()),
        ("recited", pa.bool_()),  # of choices: every token of the answer is the most likely one
        ("letters", pa.float64()),  # of choices: the probability of the right letter, in the paper's form
        ("paper_unlearned", pa.bool_()),  # none of the first five is right
        ("greedy", pa.string()),  # the finished model's answer
        ("top_wrong", pa.string()),  # its most frequent wrong answer
        ("top_wrong_share", pa.float64()),
        ("tokens", pa.int64()),
        ("nll", pa.float64()),  # nats per supervised token, at the last checkpoint
        ("token_accuracy", pa.float64()),
        ("forgetting_events", pa.int64()),
        ("first_learned_step", pa.int64()),
        ("last_learned_step", pa.int64()),
        ("confidence", pa.float64()),
        ("variability", pa.float64()),
        ("correctness", pa.int64()),
        ("mean_margin", pa.float64()),  # averaged over checkpoints
        ("last_exposure_step", pa.int64()),
        ("exposures", pa.int64()),
    ]
)
"""Every row of the training file."""

UNLEARNED = pa.schema(
    [
        ("row_id", pa.string()),
        ("verdict", pa.string()),
        ("cause", pa.string()),
        ("secondary", pa.list_(pa.string())),
        ("margin", pa.float64()),
        ("ambiguous", pa.bool_()),
        ("paper_cause", pa.string()),
        ("evidence", pa.list_(EVIDENCE)),
        ("conflict_group", pa.string()),
        (
            "neighbours",
            pa.list_(pa.struct([("row_id", pa.string()), ("gold", pa.string()), ("similarity", pa.float64())])),
        ),
        ("advice", pa.string()),
    ]
)
"""Every row that is not learned, the most severe first."""

INTERVENTIONS = pa.schema(
    [
        ("cause", pa.string()),  # whose rows
        ("arm", pa.string()),  # rerun, more_compute, sham, or the cause that is treated
        ("seed", pa.int64()),
        ("row_id", pa.string()),
        ("group", pa.string()),  # cluster of the bootstrap
        ("role", pa.string()),  # unlearned (to be recovered), learned (collateral), removed (taken out by the arm)
        ("wording", pa.string()),  # original, or paraphrase
        ("right", pa.bool_()),
        ("rate", pa.float64()),
        ("nll", pa.float64()),
    ]
)
"""One row per arm, seed, training row and wording: what the treated model answers."""
