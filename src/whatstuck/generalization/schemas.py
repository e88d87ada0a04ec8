"""The tables that `generalize` leaves in a run folder; docs/run-folder.md describes their columns."""

import pyarrow as pa

REPLIES = pa.schema(
    [
        ("item", pa.int64()),  # 0-based, in the order drawn; the same item of every checkpoint
        ("content", pa.string()),  # key of what it was made of: the cluster of intervals
        ("sample", pa.int64()),  # number of the draw; -1 for greedy
        ("prompt", pa.string()),  # the text as the model sees it
        ("reply", pa.string()),  # prefill included; of an episode, that of its last turn
        ("valid", pa.float64()),  # 0 or 1; of an episode, the share of its turns
        ("success", pa.bool_()),
        ("outcome", pa.string()),  # right, no_answer, ... ; check_failed, check_timed_out
        ("chance", pa.float64()),  # share of up to 16 other items of the cell that this reply is right for
        # 0 or 1: valid by the training's meanings and not by those shown; null where these have the same words, and for
        # other kinds than instruction and harder; of an episode, the share of its turns
        ("old", pa.float64()),
        ("cut", pa.bool_()),  # whether it was cut at the longest length; of an episode, in any turn
    ]
)
"""`generalization/ARM/step-NNNNNN/VARIANT.parquet`: one row per reply."""

GENERALIZATION = pa.schema(
    [
        ("task", pa.string()),
        ("arm", pa.string()),  # which training; `sft` unless it was named
        ("variant", pa.string()),
        ("kind", pa.string()),  # training, instruction, wording, harder, fake
        ("step", pa.int64()),
        ("decoding", pa.string()),  # greedy, or `temperature 0.5`
        ("items", pa.int64()),
        ("contents", pa.int64()),  # distinct ones among them
        ("success", pa.float64()),
        ("low", pa.float64()),  # 95 % interval, clustered by content
        ("high", pa.float64()),
        ("validity", pa.float64()),
        ("validity_low", pa.float64()),
        ("validity_high", pa.float64()),
        ("chance", pa.float64()),  # success of the same replies, dealt to other items
        ("chance_low", pa.float64()),
        ("chance_high", pa.float64()),
        ("old", pa.float64()),  # replies that obey the old instruction and not the one shown; NaN where none is new
        ("old_low", pa.float64()),
        ("old_high", pa.float64()),
        ("no_answer", pa.int64()),  # replies without an answer
        ("longer", pa.int64()),  # replies that begin with an answer and go on, of tasks that tell this apart
        ("failed", pa.int64()),  # replies whose check raised
        ("timed_out", pa.int64()),  # replies whose check took too long
        ("unsolvable", pa.int64()),  # contents that no item could be made of
        ("cut", pa.int64()),  # replies that were cut at the longest length; null where that was not counted
    ]
)
"""`generalization.parquet`: one row per cell."""
