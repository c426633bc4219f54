from nibble.evaluation.alignment import align, aligned


def test_words_stand_under_each_other_and_gaps_are_stars() -> None:
    top, bottom = aligned("the cat sat on mat", "a cat sat upon on").plain.splitlines()
    assert top.split() == ["ref", "the", "cat", "sat", "****", "on", "mat"]
    assert bottom.split() == ["hyp", "a", "cat", "sat", "upon", "on", "***"]
    assert top.index("on mat") == bottom.index("on ***")


def test_colours_say_what_happened() -> None:
    text = aligned("one two three", "one too three four")
    styles = {text.plain[span.start : span.end].strip(): span.style for span in text.spans}
    assert styles["two"] == styles["too"] == "bold yellow"
    assert styles["four"] == "bold blue"
    assert aligned("one", "").spans[0].style == "bold red"


def test_nothing_at_all() -> None:
    assert aligned("", "").plain == "ref \nhyp "


def test_long_utterances_go_on_in_the_next_pair_of_lines() -> None:
    lines = aligned("one two three four five", "one three four five", width=14).plain.splitlines()
    assert [line[:3] for line in lines] == ["ref", "hyp"] * (len(lines) // 2)
    assert all(len(line.rstrip()) <= 14 for line in lines)
    assert " ".join(line[4:].strip() for line in lines[::2]).split() == ["one", "two", "three", "four", "five"]


def test_pairs_say_what_became_of_each_word() -> None:
    pairs = align("one two three", "one too three four")
    assert pairs == [("one", "one"), ("two", "too"), ("three", "three"), ("", "four")]
    assert [pair.kind for pair in pairs] == ["same", "substituted", "same", "inserted"]
    assert [pair.kind for pair in align("one", "")] == ["deleted"]
