from nibble.evaluation.alignment import aligned


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
