import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby, product

import pytest
import torch
from tiny_transducer import MEL_BINS

from nibble.model.decoding import MAX_REPEATS, Hypothesis, beam, greedy, word_timestamps
from nibble.model.loss import transducer_loss
from nibble.model.transducer import Transducer

FRAME_S = 0.04
V = 3  # blank and two labels: few enough sequences to try them all


def encode(model: Transducer, *frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(7)
    return model.encode(torch.randn(len(frames), max(frames), MEL_BINS) * 3, torch.tensor(frames))


def probabilities(model: Transducer, encoded: torch.Tensor, labels: tuple[int, ...]) -> torch.Tensor:
    """log p(symbol | frame, labels so far): (T', U + 1, V), computed without any decoding code."""
    with torch.no_grad():
        return model.join(encoded.unsqueeze(0), model.predict(torch.tensor([labels], dtype=torch.long)))[0].log_softmax(
            -1
        )


def log_probability(model: Transducer, encoded: torch.Tensor, labels: tuple[int, ...], bound: int) -> float:
    """log p(labels), over all alignments with at most `bound` labels a frame, by plain recursion."""
    log_probs = probabilities(model, encoded, labels)

    @cache
    def rest(t: int, u: int) -> torch.Tensor:
        if t == len(encoded):
            return torch.tensor(0.0 if u == len(labels) else float("-inf"), dtype=torch.double)
        ways, emitted = [], torch.tensor(0.0, dtype=torch.double)
        for count in range(min(bound, len(labels) - u) + 1):
            ways.append(emitted + log_probs[t, u + count, 0] + rest(t + 1, u + count))
            if u + count < len(labels):
                emitted = emitted + log_probs[t, u + count, labels[u + count]]
        return torch.stack(ways).logsumexp(0)

    return rest(0, 0).item()


def best_sequence(model: Transducer, encoded: torch.Tensor, bound: int) -> tuple[tuple[int, ...], float]:
    longest = bound * len(encoded)
    every = [labels for size in range(longest + 1) for labels in product(range(1, V), repeat=size)]
    scores = [log_probability(model, encoded, labels, bound) for labels in every]
    best = max(range(len(every)), key=scores.__getitem__)
    return every[best], scores[best]


def repeated(labels: Sequence[int], label: int) -> bool:
    """Whether `label` stands as often in a row at the end of `labels` as it may."""
    return list(labels[-MAX_REPEATS:]) == [label] * MAX_REPEATS


def walk(model: Transducer, encoded: torch.Tensor, bound: int) -> Hypothesis:
    """Greedy search of one utterance by definition: the predictor sees the whole prefix anew each time."""
    result = Hypothesis()
    for t in range(len(encoded)):
        for count in range(bound + 1):
            log_probs = probabilities(model, encoded, tuple(result.ids))[t, -1]
            label = int(log_probs.argmax()) if count < bound else 0
            label = 0 if repeated(result.ids, label) else label
            result.score += log_probs[label].item()
            if label == 0:
                break
            result.ids.append(label)
            result.frames.append(t)
    return result


def narrow_search(model: Transducer, encoded: torch.Tensor, width: int, bound: int) -> tuple[tuple[int, ...], float]:
    """Beam search by definition: nothing is negligible, and the predictor sees the whole prefix anew each time."""
    going: dict[tuple[int, ...], float] = {(): 0.0}
    for t in range(len(encoded)):
        finished: dict[tuple[int, ...], list[float]] = {}
        for count in range(bound + 1):
            longer = {}
            for labels, score in going.items():
                log_probs = probabilities(model, encoded, labels)[t, -1].tolist()
                finished.setdefault(labels, []).append(score + log_probs[0])
                allowed = [label for label in range(1, len(log_probs)) if not repeated(labels, label)]
                longer |= {(*labels, label): score + log_probs[label] for label in allowed}
            going = dict(sorted(longer.items(), key=lambda item: -item[1])[:width]) if count < bound else {}
        merged = {labels: torch.tensor(ways).logsumexp(0).item() for labels, ways in finished.items()}
        going = dict(sorted(merged.items(), key=lambda item: -item[1])[:width])
    return max(going.items(), key=lambda item: item[1])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("width", [1, 2, 4])
def test_narrow_beam_is_the_search_by_definition(make_tiny: Callable[..., Transducer], seed: int, width: int) -> None:
    model = make_tiny(6, seed)
    encoded, lengths = encode(model, 31)
    (found,) = beam(model, encoded, lengths, width, max_symbols_per_frame=3)
    labels, score = narrow_search(model, encoded[0], width, bound=3)
    assert tuple(found.ids) == labels
    assert found.score == pytest.approx(score, abs=1e-2)  # what was negligible is left out


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bound", [1, 2])
def test_beam_finds_the_best_of_all_sequences(make_tiny: Callable[..., Transducer], seed: int, bound: int) -> None:
    model = make_tiny(V, seed)
    encoded, lengths = encode(model, 15)  # three frames
    (found,) = beam(model, encoded, lengths, width=200, max_symbols_per_frame=bound)
    labels, score = best_sequence(model, encoded[0], bound)
    assert tuple(found.ids) == labels
    assert found.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bound", [1, 2, 5])
def test_greedy_is_the_walk_by_definition(make_tiny: Callable[..., Transducer], seed: int, bound: int) -> None:
    model = make_tiny(5, seed)
    encoded, lengths = encode(model, 41, 7, 30, 19)
    found = greedy(model, encoded, lengths, max_symbols_per_frame=bound)
    for row, hypothesis in enumerate(found):
        want = walk(model, encoded[row, : lengths[row]], bound)
        assert (hypothesis.ids, hypothesis.frames) == (want.ids, want.frames)
        assert hypothesis.score == pytest.approx(want.score, abs=1e-4)


def test_the_cases_above_emit_labels_and_blanks(make_tiny: Callable[..., Transducer]) -> None:
    """Otherwise they would compare nothing."""
    sizes = []
    for seed in range(6):
        model = make_tiny(5, seed)
        sizes.append(len(greedy(model, *encode(model, 41))[0].ids))
    assert len(set(sizes)) > 1


@pytest.mark.parametrize("seed", range(3))
def test_greedy_is_never_better_than_a_wide_beam(make_tiny: Callable[..., Transducer], seed: int) -> None:
    model = make_tiny(5, seed)
    encoded, lengths = encode(model, 20, 11)
    for one, many in zip(
        greedy(model, encoded, lengths, 2),
        beam(model, encoded, lengths, width=64, max_symbols_per_frame=2),
        strict=True,
    ):
        assert many.score >= one.score - 1e-4


def test_beam_score_is_the_loss_when_the_bound_does_not_bind(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny(V, seed=1)
    encoded, lengths = encode(model, 15)
    (found,) = beam(model, encoded, lengths, width=3000, max_symbols_per_frame=6)
    labels = torch.tensor([found.ids], dtype=torch.long)
    assert len(found.ids) <= 6
    loss = transducer_loss(model.join(encoded, model.predict(labels)), lengths, labels, torch.tensor([len(found.ids)]))
    assert found.score == pytest.approx(-loss.item(), abs=1e-3)


def test_an_utterance_decodes_alone_as_in_a_batch(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny(6, seed=2)
    encoded, lengths = encode(model, 41, 7, 30)
    for search in (greedy, lambda *args: beam(*args, width=4)):
        together = search(model, encoded, lengths)
        for row, hypothesis in enumerate(together):
            (alone,) = search(model, encoded[row : row + 1, : lengths[row]], lengths[row : row + 1])
            assert (alone.ids, alone.frames) == (hypothesis.ids, hypothesis.frames)


def test_frames_stand_in_order_and_within_the_bound(make_tiny: Callable[..., Transducer]) -> None:
    model = make_tiny(6, seed=3)
    encoded, lengths = encode(model, 60)
    for (found,) in (greedy(model, encoded, lengths, 2), beam(model, encoded, lengths, 5, 2)):
        assert len(found.frames) == len(found.ids)
        assert found.frames == sorted(found.frames)
        assert all(found.frames.count(frame) <= 2 for frame in found.frames)
        assert all(0 <= frame < int(lengths) for frame in found.frames)


@pytest.mark.parametrize("seed", range(3))
def test_no_label_is_repeated_without_end(make_tiny: Callable[..., Transducer], seed: int) -> None:
    """A model that is sure of one label at every frame: each search emits it `MAX_REPEATS` times in a row at most."""
    model = make_tiny(V, seed)
    with torch.no_grad():
        model.joiner.output.bias[2] = 50.0
    encoded, lengths = encode(model, 200, 90)
    for search in (greedy, lambda *given: beam(*given, width=3)):
        for found in search(model, encoded, lengths):
            runs = [len(list(run)) for _, run in groupby(found.ids)]
            assert max(runs) == MAX_REPEATS
            assert math.isfinite(found.score)


def test_words_from_pieces_of_words() -> None:
    words = word_timestamps(["▁THE", "▁CA", "T", "▁SAT"], [frame * FRAME_S for frame in (2, 5, 7, 20)], FRAME_S)
    assert [word.text for word in words] == ["THE", "CAT", "SAT"]
    assert [word.start_s for word in words] == pytest.approx([2 * FRAME_S, 5 * FRAME_S, 20 * FRAME_S])
    assert words[1].end_s == pytest.approx(8 * FRAME_S)


def test_words_from_characters() -> None:
    words = word_timestamps(list("▁ON▁E"), [frame * FRAME_S for frame in (1, 3, 4, 8, 9)], FRAME_S)
    assert [(word.text, word.start_s) for word in words] == [("ON", 3 * FRAME_S), ("E", 9 * FRAME_S)]
    assert word_timestamps(list("AB"), [0, 1], FRAME_S)[0].text == "AB"
    assert word_timestamps(["▁"], [3], FRAME_S) == word_timestamps([], [], FRAME_S) == []
