"""A token-and-duration transducer: its loss is the sum over all alignments, and its search follows durations."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fused_loss import at_once
from tiny_transducer import FEATURES, MEL_BINS, tiny_config
from torch import Tensor

from nibble.conventions import BLANK
from nibble.errors import UserError
from nibble.model.decoding import MAX_REPEATS, GreedySearch, Hypothesis, beam, greedy
from nibble.model.fused_loss import fused_transducer_loss
from nibble.model.joiner import Joiner
from nibble.model.options import Predictor
from nibble.model.targets import Targets
from nibble.model.tdt_lattice import tdt_lattice
from nibble.model.transducer import Transducer

V = 3


def alignments(
    frames: int, labels: int, durations: int, t: int = 0, u: int = 0
) -> Iterator[list[tuple[int, int, int, int]]]:
    """Every way from (t, u) to the end, edge by edge: (t, u, 0 of a blank or 1 of the label, duration)."""
    for duration in range(durations):
        if duration and t + duration == frames and u == labels:
            yield [(t, u, 0, duration)]
        elif duration and t + duration < frames:
            for rest in alignments(frames, labels, durations, t + duration, u):
                yield [(t, u, 0, duration), *rest]
        if u < labels and t + duration < frames:
            for rest in alignments(frames, labels, durations, t + duration, u + 1):
                yield [(t, u, 1, duration), *rest]


def by_enumeration(log_probs: Tensor, frames: int, labels: int) -> Tensor:
    """log_probs (T', U + 1, 2 + E) of one utterance -> minus log of the summed probabilities of its alignments."""
    ways = [
        torch.stack([log_probs[t, u, kind] + log_probs[t, u, 2 + duration] for t, u, kind, duration in way]).sum()
        for way in alignments(frames, labels, log_probs.size(2) - 2)
    ]
    return -torch.stack(ways).logsumexp(0) if ways else log_probs.new_tensor(math.inf)


sizes = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2)), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(2, 4), st.integers(0, 2**16))
def test_loss_and_gradient_are_those_of_all_alignments(sizes: list[tuple[int, int]], durations: int, seed: int) -> None:
    torch.manual_seed(seed)
    lengths, label_lengths = (torch.tensor(column) for column in zip(*sizes, strict=True))
    shape = len(sizes), int(lengths.max()), int(label_lengths.max()) + 1
    log_probs = torch.randn(*shape, 2 + durations).log_softmax(3)
    for row, (frames, labels) in enumerate(sizes):  # where an utterance has no node, or no label follows
        log_probs[row, frames:] = math.nan
        log_probs[row, :, labels + 1 :] = math.nan
        log_probs[row, :, labels, 1] = math.nan
    losses, taken = tdt_lattice(log_probs, lengths, label_lengths)
    known = log_probs.double().requires_grad_()
    want = torch.stack([by_enumeration(known[row], *size) for row, size in enumerate(sizes)])
    (slopes,) = torch.autograd.grad(want.sum(), known)
    torch.testing.assert_close(losses, want.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(taken, -slopes.nan_to_num(0.0), rtol=1e-9, atol=1e-12)


def test_a_path_takes_every_label_once_and_as_many_frames_as_there_are() -> None:
    torch.manual_seed(0)
    lengths, label_lengths = [90, 60, 5], [30, 40, 3]
    log_probs = (3 * torch.randn(3, 90, 41, 7)).log_softmax(3)
    losses, taken = tdt_lattice(log_probs, torch.tensor(lengths), torch.tensor(label_lengths))
    assert losses.isfinite().all()
    for row, (frames, labels) in enumerate(zip(lengths, label_lengths, strict=True)):
        torch.testing.assert_close(taken[row, :, :labels, 1].sum(0), torch.ones(labels, dtype=torch.double))
        lasted = (taken[row, ..., 2:].sum((0, 1)) * torch.arange(5)).sum()
        assert float(lasted) == pytest.approx(frames)
        assert not taken[row, frames:].any()
        assert not taken[row, :, labels + 1 :].any()


def test_the_loss_of_a_joiner_and_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """In groups, and by parts of an utterance, as without durations."""
    torch.manual_seed(0)
    joiner = Joiner(4, 3, 6, 7, durations=3)
    encoded, predicted = torch.randn(3, 6, 4, requires_grad=True), torch.randn(3, 3, 3, requires_grad=True)
    lengths, label_lengths = torch.tensor([6, 4, 1]), torch.tensor([2, 1, 0])
    labels = torch.randint(1, 7, (3, 2))
    logits = joiner(encoded, predicted)
    following = torch.nn.functional.pad(labels, (0, 1))[:, None, :, None].expand(3, 6, 3, 1)
    of_labels = logits[..., :7].log_softmax(3)
    two = torch.cat((of_labels[..., :1], of_labels.gather(3, following)), 3)
    log_probs = torch.cat((two, logits[..., 7:].log_softmax(3)), 3)
    want = sum(by_enumeration(log_probs[row], int(lengths[row]), int(label_lengths[row])) for row in range(3))
    weights = [encoded, predicted, *joiner.parameters()]
    slopes = torch.autograd.grad(want, weights)
    for nodes in (2**14, 20, 6):
        at_once(nodes, monkeypatch)
        found = fused_transducer_loss(joiner, encoded, predicted, Targets(lengths, labels, label_lengths))
        torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
        for gradient, slope in zip(torch.autograd.grad(found, weights), slopes, strict=True):
            torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


def test_where_there_is_no_way_the_loss_is_infinite() -> None:
    log_probs = torch.zeros(1, 1, 2, 4)
    log_probs[..., 2] = -math.inf  # no label of no frames
    losses, _ = tdt_lattice(log_probs, torch.tensor([1]), torch.tensor([1]))
    assert losses.tolist() == [math.inf]  # a label of one frame leaves none for the blank behind it


def made(seed: int) -> Transducer:
    torch.manual_seed(seed)
    config = tiny_config(Predictor.stateless, max_duration_frames=3)
    model = Transducer(config, FEATURES, V).eval()
    torch.nn.init.normal_(model.joiner.output.weight, std=3.0)
    torch.nn.init.normal_(model.joiner.output.bias)
    with torch.no_grad():
        model.joiner.output.bias[BLANK] = model.joiner.output.bias[:V].max()  # labels and blanks
    return model


def walk(model: Transducer, encoded: Tensor, bound: int) -> Hypothesis:
    """Greedy search of one utterance by definition: the predictor sees the whole prefix anew each time."""
    found, t, count = Hypothesis(), 0, 0
    while t < len(encoded):
        predicted = model.predict(torch.tensor([found.ids], dtype=torch.long))
        logits = model.join(encoded.unsqueeze(0), predicted)[0, t, -1]
        label, duration = int(logits[:V].argmax()), int(logits[V:].argmax())
        if count == bound or found.ids[-MAX_REPEATS:] == [label] * MAX_REPEATS:
            label, duration = 0, 1
        duration = max(duration, 1) if label == 0 else duration
        found.score += float(logits[:V].log_softmax(0)[label] + logits[V:].log_softmax(0)[duration])
        if label:
            found.ids.append(label)
            found.frames.append(t)
        count = count + 1 if label and not duration else 0
        t += duration
    return found


@torch.no_grad()
def test_greedy_search_goes_as_far_as_a_duration_says() -> None:
    """A batch, and frames that come in parts: a duration may reach beyond the part."""
    labels = 0
    for seed in range(4):
        model = made(seed)
        encoded, lengths = model.encode(torch.randn(2, 160, MEL_BINS) * 3, torch.tensor([160, 100]))
        want = [walk(model, encoded[row, : lengths[row]], 2) for row in range(2)]
        labels += sum(len(hypothesis.ids) for hypothesis in want)
        found = greedy(model, encoded, lengths, max_symbols_per_frame=2)
        parts = GreedySearch(model, 1, encoded.device, max_symbols_per_frame=2)
        for part in encoded[:1].split(2, 1):
            parts.extend(part, torch.tensor([part.size(1)]))
        for ours, theirs in zip((*found, *parts.hypotheses), (*want, want[0]), strict=True):
            assert (ours.ids, ours.frames) == (theirs.ids, theirs.frames)
            assert ours.score == pytest.approx(theirs.score, rel=1e-4)
    assert labels > 20


def test_what_does_not_fit_durations_is_said() -> None:
    model = made(0)
    with pytest.raises(UserError, match=r"predicts durations \(TDT\), which beam search cannot; give decoding="):
        beam(model, torch.zeros(1, 2, 16), torch.tensor([2]), width=2)
    with pytest.raises(UserError, match=r"model.max_duration_frames=3 is of a transducer"):
        tiny_config(Predictor.none, max_duration_frames=3)
