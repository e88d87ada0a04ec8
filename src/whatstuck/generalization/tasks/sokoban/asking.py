"""How a room is shown, how a reply is read, and when a move is right."""

from dataclasses import dataclass

from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.task import Score
from whatstuck.generalization.tasks.sokoban.rooms import MOVES, Room
from whatstuck.generalization.tasks.sokoban.solving import solve

_TRAINING = """\
You steer a worker in a store room until every box is on a goal.
Signs: # wall, _ free, O goal, X box, V box on a goal, P worker, S worker on a goal.
A step against a box shoves it on if the cell behind it is open. Boxes cannot be pulled.
{answers}Room:
{room}
Give the next step of a shortest solution as <answer> word </answer>."""

_REWORDED = """\
Plan the tidying of a depot that is drawn below, square by square.
{room}
In the drawing, P is the person at work (S while on a marked square), X a crate, O a marked square, V a crate that is \
already on one, # brick and _ bare ground. Walking into a crate slides it along when nothing is right behind it; it \
cannot be pulled back. All crates must end on marked squares, in as few steps as can be.
{answers}What should the person do next? Write <answer> word </answer>."""


@dataclass(frozen=True, slots=True)
class SokobanPrompt:
    """A room and the words for moves, as a user's message.

    Attributes:
        prefill: How the reply begins: `<answer>`, or `<think>` where the reply holds a thought.
        text: The message, with places for `answers` and `room`.
        lists_answers: Whether the words are listed at all.
    """

    prefill: str = "<answer>"
    text: str = _TRAINING
    lists_answers: bool = True

    def render(self, item: Room, shown: InstructionMapping) -> str:
        """The user's message."""
        answers = _answers(shown) if self.lists_answers else ""
        return self.text.format(answers=answers, room=drawing(item))


def prompts(*, thought: bool) -> dict[str, SokobanPrompt]:
    """The wordings by name: that of the training, another one, and the training's without the list of words."""
    prefill = "<think>" if thought else "<answer>"
    return {
        "training": SokobanPrompt(prefill),
        "reworded": SokobanPrompt(prefill, _REWORDED),
        "empty": SokobanPrompt(prefill, lists_answers=False),
    }


def _answers(shown: InstructionMapping) -> str:
    """The part that says which words may be replied; nothing else of a prompt depends on the mapping."""
    text = "Words for a step: " + " | ".join(shown.meanings) + "\n"
    if shown.meanings != tuple(shown):
        text += "Here " + ", ".join(f"{word} means {move}" for move, word in shown.pairs) + ".\n"
    return text


def drawing(room: Room) -> str:
    """A room in signs with spaces between, since tokenizers would melt `##` into one token."""

    def sign(cell: int) -> str:
        if cell in room.walls:
            return "#"
        on_goal = cell in room.targets
        if cell == room.player:
            return "S" if on_goal else "P"
        if cell in room.boxes:
            return "V" if on_goal else "X"
        return "O" if on_goal else "_"

    rows = range(0, room.size**2, room.size)
    return "\n".join(" ".join(sign(cell) for cell in range(first, first + room.size)) for first in rows)


class SokobanScorer:
    """A reply is valid if it is one of the scored words, right if its move begins a shortest solution.

    The authors accept one of the shortest solutions alone; every one counts here.
    """

    def score(self, item: Room, scored: InstructionMapping, answer: str) -> Score:
        """Score a word: `right`, `wrong_move` or `unknown_word`."""
        move = move_of(answer, scored)
        if move is None:
            return Score(valid=False, success=False, outcome="unknown_word")
        solution = solve(item)
        right = solution is not None and move in solution.best
        return Score(valid=True, success=right, outcome="right" if right else "wrong_move")


_MARKS = " .!*`'\""  # of a sentence, of Markdown, and quotes


def move_of(word: str, mapping: InstructionMapping) -> str | None:
    """The move that a word stands for, whatever its case and the marks around it; None if it is none of the mapping."""
    plain = word.casefold().replace("\ufe0f", "")  # ⬆️ is ⬆
    moves = {meaning.casefold(): move for move, meaning in mapping.pairs}
    return moves.get(plain) or moves.get(plain.strip(_MARKS))


def step(item: Room, scored: InstructionMapping, answer: str) -> Room | None:
    """The room after a reply, the same where the reply is not valid; None when it is solved."""
    move = move_of(answer, scored)
    after = item if move is None else item.moved(move)
    return None if after.solved else after


class SokobanDemonstrator:
    """Writes the solver's move, and on demand the few facts that lead to it."""

    def reply(self, item: Room, shown: InstructionMapping, *, thought: bool) -> str:
        """The whole reply.

        A thought names the worker's place, the box that is shoved next, the target where the solution leaves it, the
        place to shove from, and the move: places as row and column, counted from 0.
        """
        solution = solve(item)
        if solution is None or not solution.path:
            raise ValueError("a room that is solved, or cannot be, has no next move")
        move = solution.path[0]
        answer = f"<answer> {shown[move]} </answer>"
        if not thought:
            return answer
        box, target, stand, push = _next_push(item, solution.path)
        facts = f"worker {_at(item, item.player)}, box {_at(item, box)}, goal {_at(item, target)}, "
        facts += f"shove {push} from {_at(item, stand)}"
        return f"<think> {facts}. Next {move}, that is {shown[move]}. </think> {answer}"


def _next_push(room: Room, path: tuple[str, ...]) -> tuple[int, int, int, str]:
    """The box that is pushed next, where it ends, the player's cell at that push, and its direction."""
    first: tuple[int, int, str] | None = None
    followed = -1
    for move in path:
        after = room.moved(move)
        if after.boxes != room.boxes:
            (pushed,) = room.boxes - after.boxes
            (to,) = after.boxes - room.boxes
            if first is None:
                first, followed = (pushed, room.player, move), pushed
            followed = to if pushed == followed else followed
        room = after
    if first is None:
        raise ValueError(f"a solution without a push: {' '.join(path) or 'empty'} (moves are {', '.join(MOVES)})")
    box, stand, push = first
    return box, followed, stand, push


def _at(room: Room, cell: int) -> str:
    row, column = room.place(cell)
    return f"{row} {column}"
