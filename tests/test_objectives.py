"""Objectives: exact values, and distances of weights."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from whatstuck.errors import WhatStuckError
from whatstuck.training.objectives import find_objective, objective_names
from whatstuck.training.objectives.distance import Distance
from whatstuck.training.objectives.interface import entropies, kl_divergence
from whatstuck.training.objectives.tokens import top_mass

TOKENS, VOCABULARY = 7, 30


@pytest.fixture
def logits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(TOKENS, VOCABULARY, generator=generator)).requires_grad_()


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(1))


def value(name: str, logits: torch.Tensor, labels: torch.Tensor, **more: Any) -> torch.Tensor:
    """The token mean of an objective."""
    reference = more.pop("ref_logits", None)
    normalizer = more.pop("normalizer", float(len(labels)))
    return find_objective(name, more).loss(logits, labels, ref_logits=reference, normalizer=normalizer).total


def gradient(loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, logits)[0]


def probabilities(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return logits.detach().softmax(-1).gather(-1, labels[:, None]).squeeze(-1)


# --- exact values


def test_sft_is_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> None:
    torch.testing.assert_close(value("sft", logits, labels), torch.nn.functional.cross_entropy(logits, labels))


def test_dft_has_the_gradient_of_sft_times_the_probability(logits: torch.Tensor, labels: torch.Tensor) -> None:
    sft = gradient(value("sft", logits, labels), logits)
    dft = gradient(value("dft", logits, labels), logits)
    torch.testing.assert_close(dft, probabilities(logits, labels)[:, None] * sft)
    with torch.no_grad():
        logits[torch.arange(TOKENS), labels] = 1e4  # certain of the label
    for name in ("sft", "dft"):
        loss = value(name, logits, labels)
        assert loss == 0
        assert not gradient(loss, logits).any()


def test_sed_is_sft_below_no_threshold_and_adds_a_square_above_all(logits: torch.Tensor, labels: torch.Tensor) -> None:
    sft = value("sft", logits, labels)
    assert value("sed", logits, labels, tau=0.0) == sft
    p = probabilities(logits, labels)
    added = value("sed", logits, labels, tau=1.5, weight=0.7) - sft
    torch.testing.assert_close(added, 0.7 * (p - 0.5).square().mean())
    # the term is not detached: it pushes p towards one half, by 2 (p - 1/2) dp, and dp/dz of the label is p (1 - p)
    own = gradient(added, logits)[torch.arange(TOKENS), labels]
    torch.testing.assert_close(own, 0.7 * 2 * (p - 0.5) * p * (1 - p) / TOKENS)


def test_sed_regularizes_the_positions_below_the_threshold(logits: torch.Tensor, labels: torch.Tensor) -> None:
    mass = top_mass(logits.detach().log_softmax(-1), 3)
    torch.testing.assert_close(mass, logits.detach().softmax(-1).sort(descending=True).values[:, :3].sum(-1))
    tau = mass.median().item()  # of an odd number: three lie below
    found = find_objective("sed", {"k": 3, "tau": tau}).loss(logits, labels, normalizer=1.0)
    square = (probabilities(logits, labels) - 0.5).square()
    torch.testing.assert_close(found.total, value("sft", logits, labels, normalizer=1.0) + square[mass < tau].sum())
    assert found.parts["regularized"] == pytest.approx(3 / 7)
    with pytest.raises(WhatStuckError, match="no threshold yet"):
        value("sed", logits, labels)


def test_eaft_weighs_twenty_equal_logits_with_ln_20_over_3() -> None:
    labels = torch.tensor([4])
    equal = torch.zeros(1, 20, requires_grad=True)
    weight = math.log(20) / 3
    assert value("eaft", equal, labels).item() == pytest.approx(weight * math.log(20), rel=1e-6)
    assert value("eaft", equal, labels, alpha=2.0).item() == pytest.approx(weight**2 * math.log(20), rel=1e-6)
    # twenty equal ones above many others: the entropy is theirs alone
    among = torch.cat([torch.zeros(1, 20), torch.full((1, 500), -9.0)], 1)
    assert find_objective("eaft").loss(among, labels, normalizer=1.0).parts["weight"] == pytest.approx(weight, rel=1e-6)


def test_eaft_takes_its_weight_as_given(logits: torch.Tensor, labels: torch.Tensor) -> None:
    top = logits.detach().topk(20, dim=-1).values.softmax(-1)
    weight = -(top * top.log()).sum(-1) / 3
    expected = weight[:, None] * gradient(value("sft", logits, labels), logits)
    torch.testing.assert_close(gradient(value("eaft", logits, labels), logits), expected)
    assert value("eaft", logits, labels, alpha=0.0) == value("sft", logits, labels)


def test_an_anchor_weighs_nothing_where_the_training_began(logits: torch.Tensor, labels: torch.Tensor) -> None:
    here = {"ref_logits": logits.detach().clone()}
    assert value("kl", logits, labels, weight=0.5, **here) == value("sft", logits, labels)
    assert value("asft", logits, labels, weight=0.5, **here) == value("dft", logits, labels)
    assert find_objective("kl").loss(logits, labels, normalizer=1.0, **here).parts["kl"] == 0
    for anchored, plain in (("kl", "sft"), ("asft", "dft")):
        with_anchor = gradient(value(anchored, logits, labels, weight=0.5, **here), logits)
        torch.testing.assert_close(with_anchor, gradient(value(plain, logits, labels), logits), atol=1e-7, rtol=1e-5)
    with pytest.raises(WhatStuckError, match="objective kl compares with the model at the start"):
        value("kl", logits, labels)


def test_kl_goes_from_the_model_and_asft_from_the_reference(logits: torch.Tensor, labels: torch.Tensor) -> None:
    reference = torch.randn(TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(2))
    p, q = logits.detach().double().softmax(-1), reference.double().softmax(-1)
    kl = value("kl", logits, labels, ref_logits=reference, weight=0.3) - value("sft", logits, labels)
    asft = value("asft", logits, labels, ref_logits=reference, weight=0.3) - value("dft", logits, labels)
    assert kl.item() == pytest.approx(0.3 * (p * (p / q).log()).sum(-1).mean().item(), rel=1e-5)
    assert asft.item() == pytest.approx(0.3 * (q * (q / p).log()).sum(-1).mean().item(), rel=1e-5)
    assert kl_divergence(torch.tensor([[1.0, 1e-30]]).log(), torch.tensor([[0.5, 0.5]]).log()).item() == pytest.approx(
        math.log(2)
    )


@pytest.mark.parametrize("name", objective_names())
def test_tokens_that_cannot_come_change_nothing(name: str, logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Rows that pad a vocabulary have logits of minus infinity; k most likely tokens may be more than there are."""
    masked = torch.cat([logits.detach(), torch.full((TOKENS, 5), -torch.inf)], 1).requires_grad_()
    reference = logits.detach().flip(0)
    options: dict[str, Any] = {"tau": 0.9} if name == "sed" else {}
    if "k" in type(find_objective(name)).model_fields:
        options["k"] = VOCABULARY + 3
    losses = []
    for these, ref in ((logits, reference), (masked, torch.cat([reference, torch.full((TOKENS, 5), -torch.inf)], 1))):
        given = ref if find_objective(name).needs_reference else None
        found = find_objective(name, options).loss(these, labels, ref_logits=given, normalizer=1.0)
        assert not any(part.isnan() for part in found.parts.values())
        losses.append((found.total, torch.autograd.grad(found.total, these)[0], found.parts))
    (plain, slope, parts), (padded, wide, shown) = losses
    torch.testing.assert_close(padded, plain)
    torch.testing.assert_close(shown, parts)
    torch.testing.assert_close(wide[:, :VOCABULARY], slope)
    assert not wide[:, VOCABULARY:].any()


def test_what_only_the_reference_rules_out_is_infinitely_far() -> None:
    p, q = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.5, 0.0, 0.5]]).log()
    assert kl_divergence(p, q).item() == math.inf
    assert kl_divergence(torch.tensor([[1.0, 0.0, 0.0]]).log(), q).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", objective_names())
@pytest.mark.parametrize("per_sequence", [False, True])
def test_a_batch_without_tokens_weighs_nothing(name: str, per_sequence: bool) -> None:  # noqa: FBT001 - a parameter
    logits = torch.zeros(0, VOCABULARY, requires_grad=True)
    options = {"per_sequence": per_sequence} | ({"tau": 0.9} if name == "sed" else {})
    normalizer = torch.zeros(0) if per_sequence else 1.0
    labels = torch.zeros(0, dtype=torch.long)
    found = find_objective(name, options).loss(logits, labels, ref_logits=logits.detach(), normalizer=normalizer)
    assert found.total == 0
    assert not gradient(found.total, logits).any()
    assert found.parts == {}


def test_accuracy_and_entropy_are_those_of_the_model(logits: torch.Tensor, labels: torch.Tensor) -> None:
    parts = find_objective("dft").loss(logits, labels, normalizer=9.0).parts
    p = logits.detach().double().softmax(-1)
    assert parts["entropy"].item() == pytest.approx(-(p * p.log()).sum(-1).mean().item(), rel=1e-5)
    right = [int(row.argmax()) == int(label) for row, label in zip(p, labels, strict=True)]
    right_at_all = find_objective("dft").loss(logits, p.argmax(-1), normalizer=9.0).parts["mean_token_accuracy"]
    assert parts["mean_token_accuracy"] == pytest.approx(sum(right) / TOKENS)
    assert right_at_all == 1
    many = logits.detach().repeat(100, 1)  # more than are taken at once
    assert entropies(many.log_softmax(-1)).mean().item() == pytest.approx(parts["entropy"].item(), rel=1e-5)


@pytest.mark.parametrize("name", objective_names())
def test_parts_of_a_batch_add_up_to_the_batch(name: str, logits: torch.Tensor, labels: torch.Tensor) -> None:
    more: dict[str, Any] = {"tau": 0.9} if name == "sed" else {}
    reference = logits.detach().flip(0) if find_objective(name).needs_reference else None
    given = more | {"normalizer": float(TOKENS)}
    whole = value(name, logits, labels, ref_logits=reference, **given)
    parts = [
        value(name, logits[part], labels[part], ref_logits=None if reference is None else reference[part], **given)
        for part in (slice(0, 2), slice(2, TOKENS))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_a_normalizer_per_token_weighs_sequences(logits: torch.Tensor, labels: torch.Tensor) -> None:
    lengths = torch.tensor([2, 2, 5, 5, 5, 5, 5])  # of the sequence that each token is of; two sequences
    found = value("sft", logits, labels, normalizer=lengths * 2)
    means = [value("sft", logits[part], labels[part]) for part in (slice(0, 2), slice(2, 7))]
    torch.testing.assert_close(found, torch.stack(means).mean())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sfd", {}, "unknown objective 'sfd': use sft, dft, sed, eaft, asft, kl, l2"),
        ("sed", {"taau": 1}, "'taau' is no option of the objective sed: did you mean tau"),
        ("sft", {"zzz": 1}, "'zzz' is no option of the objective sft: use per_sequence"),
        ("kl", {"weight": -1}, "weight of kl: .*greater than or equal to 0"),
    ],
)
def test_unknown_objectives_and_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhatStuckError, match=message) as caught:
        find_objective(name, options)
    assert "\n" not in str(caught.value)


# --- distance of weights


def test_the_distance_of_an_adapter_is_that_of_what_it_adds(tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    base = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    config = LoraConfig(
        r=3, lora_alpha=7, target_modules=["q_proj", "down_proj", "embed_tokens"], task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    distance = Distance(adapted)
    assert distance.squared() == 0
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_()
    found = distance.squared()
    found.backward()
    assert all(weight.grad is not None for name, weight in adapted.named_parameters() if "lora_" in name)
    merged = dict(adapted.merge_and_unload().named_parameters())
    expected = sum((merged[name].double() - base[name].double()).square().sum().item() for name in base)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_the_distance_of_a_whole_model_is_the_raw_sum(tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    distance = Distance(model)
    assert distance.squared() == 0
    with torch.no_grad():
        model.lm_head.weight += 0.5
    assert distance.squared().item() == pytest.approx(0.25 * model.lm_head.weight.numel())
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    with pytest.raises(WhatStuckError, match="train nothing else"):
        Distance(get_peft_model(model, config))
