"""Where replies come from in a step, and what they are worth: our own generation in the place of the trainer's.

It draws by random numbers that belong to seed, item and step, so that a training that goes on after an interruption
draws what it would have drawn. And it takes tokens: the trainer would tokenize prompts as texts, and put a second BOS
before those that a template has written one into.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainerCallback

from whatstuck.generalization.cells import UNCHECKED
from whatstuck.live.borrowing import borrowed
from whatstuck.models.generating import Continuation, Decoding, generate, seed_of
from whatstuck.training.rl.items import AnyTask, Asked, score_reply
from whatstuck.training.rl.prefixes import Outcome, PrefixSampler, revealed
from whatstuck.training.rl.rewards import Reward

FILE_NAME = "prefixes.json"


class Rollout:
    """Answers the prompts of a step.

    Args:
        task: The task.
        asked: Its items; a prompt of the trainer's is the number of one, as text.
        tokenizer: Of the model.
        decoding: How to answer; `samples` per item.
        reward: What an outcome is worth.
        end: The text behind a reply; empty if there is none.
        seed: Of the draws.
        prefixes: What is revealed of right replies; None: nothing.

    Attributes:
        trainer: The trainer; set once it is there.
    """

    def __init__(
        self,
        task: AnyTask,
        asked: Sequence[Asked],
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        reward: Reward,
        *,
        end: str,
        seed: int,
        prefixes: PrefixSampler | None = None,
    ) -> None:
        self._task = task
        self._asked = asked
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._reward = reward
        self._end = end
        self._seed = seed
        self._prefixes = prefixes
        self.trainer: Any = None

    def __call__(self, prompts: Sequence[str], *_: Any) -> dict[str, Any]:
        """Answer.

        Args:
            prompts: Numbers of items; each stands there as often as it has replies.

        Returns:
            TRL's `prompt_ids` (up to where the model goes on), `completion_ids` and `logprobs`, and `reward`.
        """
        samples = self._decoding.samples
        numbers = list(prompts[::samples])
        shares = [0.0 if self._prefixes is None else self._prefixes.draw(number) for number in numbers]
        asked = [self._asked[int(number)] for number in numbers]
        given = [one.rest[: revealed(share, len(one.rest))] for one, share in zip(asked, shares, strict=True)]
        starts = [one.prompt + one.prefill + shown for one, shown in zip(asked, given, strict=True)]
        step = self.trainer.state.global_step
        with borrowed(self.trainer.model) as model:
            seeds = [seed_of(self._seed, number, str(step)) for number in numbers]
            answers = generate(model, starts, self._decoding, seeds=seeds)
        found: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": None, "reward": []}
        scores = []
        outcomes: dict[str, Outcome] = {}
        for number, share, one, shown, start, answer in zip(
            numbers, shares, asked, given, starts, answers, strict=True
        ):
            group = [score_reply(self._task, one, self._text(one, shown, said)) for said in answer.drawn]
            rewards = [self._reward(score) for score in group]
            outcomes[number] = Outcome(share, len(one.rest), sum(rewards) / len(rewards))
            found["prompt_ids"] += [list(start)] * samples
            found["completion_ids"] += [_learned(said) for said in answer.drawn]
            found["reward"] += rewards
            scores += group
        logged: dict[str, list[Any]] = {
            "success": [score.success for score in scores],
            "valid": [score.valid for score in scores],
            "check_failed": [score.outcome in UNCHECKED for score in scores],
        }
        if self._prefixes is not None:
            self._prefixes.learn(outcomes)
            logged |= {"revealed": shares, "without_help": [self._prefixes.without_help]}
        for name, values in logged.items():
            metrics = self.trainer._metrics["train"][name]  # noqa: SLF001 - TRL logs their means
            metrics.append(sum(values) / len(values))
        return found

    def _text(self, one: Asked, shown: Sequence[int], said: Continuation) -> str:
        """The whole reply, as the parser reads it."""
        ids = [*one.prefill, *shown, *said.ids]
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return text.partition(self._end)[0] if self._end else text


def _learned(said: Continuation) -> list[int]:
    """A reply with the token that ended it: to stop is to be learned as well."""
    return list(said.ids) if said.stopped_by is None else [*said.ids, said.stopped_by]


class PrefixState(TrainerCallback):
    """Keeps what was learned about prefixes in every checkpoint, and takes it from there."""

    def __init__(self, prefixes: PrefixSampler) -> None:
        self._prefixes = prefixes

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on from what the checkpoint says."""
        del control
        if state.global_step:
            file = Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE_NAME
            self._prefixes.go_on(json.loads(file.read_text(encoding="utf-8")))

    def save(self, folder: Path) -> None:
        """Write what going on takes into the folder of a checkpoint."""
        (folder / FILE_NAME).write_text(json.dumps(self._prefixes.state()) + "\n", encoding="utf-8")
