"""The contract of `Source`: whatever the format, the same speech becomes the same cuts, and what is wrong is named."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from formats import WRITERS, recording, rows_of, write_lines, write_manifest

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import decode, source
from nibble.data.sources.librispeech import LibriSpeech
from nibble.data.sources.part import Reading, check_part, read_part
from nibble.data.sources.recognise import parts_in, select_parts, source_of
from nibble.data.sources.shar import write_shar
from nibble.data.sources.source import Claim, Problem
from nibble.errors import UserError

FORMATS = ("LibriSpeech", "Shar", *WRITERS)


@pytest.fixture
def layout(tiny_corpus: Path, tmp_path: Path) -> LibriSpeech:
    shutil.copytree(tiny_corpus / "LibriSpeech/dev-tiny", tmp_path / "layout")
    return LibriSpeech(tmp_path / "layout")


@pytest.mark.parametrize("name", FORMATS)
def test_every_source_gives_the_same_speech(name: str, layout: LibriSpeech, tmp_path: Path) -> None:
    expected = read_part(layout, tmp_path / "cache")
    path = layout.path
    if name == "Shar":
        write_shar(layout, "shards", tmp_path, tmp_path / "cache")
        path = tmp_path / "shards"
    elif name != "LibriSpeech":
        path = WRITERS[name](tmp_path, rows_of(expected))
    part = source_of(path)
    assert type(part) is type(source_of(path))
    assert part.path.is_relative_to(path.parent)
    assert all(file.is_file() for file in part.files())
    claims = list(part.claims())
    assert claims == list(part.claims()), "another time, another corpus"
    assert [claim.id for claim in claims if isinstance(claim, Claim)] == list(expected.ids)
    for _ in range(2):  # checked, then read from what was kept
        cuts = read_part(part, tmp_path / "cache")
        assert cuts.durations_s.tolist() == expected.durations_s.tolist()
        for ours, theirs in zip(cuts, expected, strict=True):
            assert (ours.id, ours.duration) == (theirs.id, theirs.duration)
            assert ours.supervisions[0].text == theirs.supervisions[0].text
            assert ours.supervisions[0].speaker == theirs.supervisions[0].speaker
            assert np.array_equal(decode(source(ours)), decode(source(theirs)))


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_source_names_what_is_wrong(name: str, layout: LibriSpeech, tmp_path: Path) -> None:
    good = read_part(layout, tmp_path / "cache")
    rows = rows_of(good)
    rows[0]["audio"] = "/home/somebody/else.flac"
    rows[1]["text"] = ""
    rows.append(rows[2])
    part = source_of(WRITERS[name](tmp_path, rows))
    with pytest.raises(UserError, match=r"data\.max_bad_utterances=0.*else\.flac is not there"):
        read_part(part, tmp_path / "cache")
    found, _ = check_part(part, tmp_path / "cache")
    assert len(found) == 2
    kinds = found.found.problems
    assert kinds["audio that can't be used"].count == kinds["empty transcript"].count == 1
    if name != "Kaldi":  # where a second line of an id takes the place of the first
        assert kinds["id of an earlier utterance"].count == 1


# ---- long recordings -------------------------------------------------------------------------------------------------


@pytest.fixture
def long(layout: LibriSpeech, tmp_path: Path) -> tuple[Path, list[tuple[str, float, np.ndarray]]]:
    """The four utterances in one file, and (text, start, samples) of each."""
    pieces, found, start = [], [], 0
    for cut in read_part(layout, tmp_path / "cache"):
        samples = decode(source(cut))
        found.append((cut.supervisions[0].text, start / SAMPLE_RATE_HZ, samples))
        pieces += [samples, np.zeros(800, dtype=np.float32)]
        start += len(samples) + 800
    soundfile.write(tmp_path / "long.flac", np.concatenate(pieces), SAMPLE_RATE_HZ)
    return tmp_path / "long.flac", found


@pytest.mark.parametrize("name", ["manifest", "Kaldi", "cuts"])
def test_a_long_recording_is_cut_where_its_utterances_are(name: str, long, tmp_path: Path) -> None:
    file, pieces = long
    times = [(text, start_s, len(samples) / SAMPLE_RATE_HZ) for text, start_s, samples in pieces]
    if name == "manifest":
        lines = [{"audio_filepath": file.name, "offset": s, "duration": d, "text": t} for t, s, d in times]
        path = write_lines(tmp_path / "part.json", lines)
    elif name == "Kaldi":
        path = tmp_path / "kaldi"
        path.mkdir()
        (path / "wav.scp").write_text(f"rec {file}\n")
        (path / "segments").write_text("".join(f"u{n} rec {s} {s + d}\n" for n, (_, s, d) in enumerate(times)))
        (path / "text").write_text("".join(f"u{n} {t}\n" for n, (t, _, _) in enumerate(times)))
    else:
        total = soundfile.info(file).frames / SAMPLE_RATE_HZ
        whole = recording({"id": "rec", "audio": str(file), "duration": total})
        said = [{"id": f"u{n}", "start": s, "duration": d, "text": t} for n, (t, s, d) in enumerate(times)]
        cut = {"id": "c", "type": "MonoCut", "start": 0, "duration": total, "recording": whole, "supervisions": said}
        path = write_lines(tmp_path / "cuts.jsonl", [cut])
    cuts = read_part(source_of(path), tmp_path / "cache")
    for cut, (text, _, samples) in zip(cuts, pieces, strict=True):
        assert cut.supervisions[0].text == text
        assert cut.num_samples == len(samples)
        assert np.array_equal(decode(source(cut)), samples)
        assert np.array_equal(decode(source(cut), 100, 50), samples[100:150])
        assert np.array_equal(decode(source(cut), len(samples) - 10, 50), samples[-10:])


def test_times_that_overlap_or_lie_outside_are_named(long, tmp_path: Path) -> None:
    file, _ = long
    length_s = soundfile.info(file).frames / SAMPLE_RATE_HZ
    times = [(0.0, 1.0), (0.5, 1.0), (length_s - 1, 1.3), (length_s - 1, 3.0), (length_s + 1, 1.0)]
    lines = [{"audio_filepath": file.name, "offset": s, "duration": d, "text": "a"} for s, d in times]
    found, _ = check_part(
        source_of(write_lines(tmp_path / "part.jsonl", [*lines, {**lines[0], "offset": -1}])), tmp_path
    )
    assert len(found) == 3
    assert found.found.problems["times outside of the recording"].count == 2
    assert found.found.problems["offset that is not a time"].count == 1
    assert found.found.notes["overlap the one before in the same recording"].examples[0] == (
        "long-0.500",
        "long for 0.50 s",
    )
    assert found.found.notes["end after their recording and were shortened"].examples == [
        (f"long-{length_s - 1:.3f}", "by 0.30 s")
    ]


# ---- which format ----------------------------------------------------------------------------------------------------


def test_parts_go_by_their_names(tmp_path: Path) -> None:
    for name in ("train-a", "train-b", "dev"):
        (tmp_path / name).mkdir()
    for name in ("test.tsv", "validated.tsv", "cuts_recordings.jsonl.gz", "README.md"):
        (tmp_path / name).write_text("")
    assert list(parts_in(tmp_path)) == ["dev", "train-a", "train-b", "test", "validated"]
    assert select_parts(tmp_path, "train", None, "") == ["train-a", "train-b"]
    assert select_parts(tmp_path, "dev", None, "") == ["dev"]
    assert select_parts(tmp_path, "train", ["train-a", "test.tsv"], "") == ["train-a", "test.tsv"]
    with pytest.raises(UserError, match=r"data\.x: no part tran-a in .*; there is train-a"):
        select_parts(tmp_path, "train", ["tran-a"], "data.x")
    (other := tmp_path / "other").mkdir()
    for name in ("cuts_train.jsonl.gz", "cuts_validation.jsonl.gz"):
        (other / name).write_text("")
    assert select_parts(other, "train", None, "") == ["cuts_train"]
    assert select_parts(other, "dev", None, "") == ["cuts_validation"]


def test_common_voice_as_it_is_unpacked(layout: LibriSpeech, tmp_path: Path) -> None:
    folder = tmp_path / "cv" / "de"
    (folder / "clips").mkdir(parents=True)
    soundfile.write(folder / "clips" / "a.mp3", 0.1 * np.sin(np.arange(44_100)), 44_100)
    header = "client_id\tpath\tsentence\tup_votes\tage\tlocale"
    (folder / "train.tsv").write_text(f'{header}\nab12\ta.mp3\tEr sagte: "Grüß Gott!"\t2\ttwenties\tde\n')
    (cut,) = read_part(source_of(folder / "train.tsv"), tmp_path / "cache")
    said = cut.supervisions[0]
    assert (said.text, said.speaker, said.language) == ('Er sagte: "Grüß Gott!"', "ab12", "de")
    assert said.custom == {"up_votes": "2", "age": "twenties"}
    assert abs(cut.duration - 1.0) < 0.1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.tsv",
            "wav_path\tsaid\nx.wav\thello\n",
            r"no field .* for the audio; it has wav_path, said: .*data\.columns=\[audio:NAME\]",
        ),
        ("a.tsv", "", r"is empty; its first line is to name the columns"),
        ("a.jsonl", "", r"is empty"),
        ("a.jsonl", '{"audio_filepath": "x.wav"}\n', r"no field .* for the text"),
        ("a.json", "[\n{}]", r"is one JSON value; a manifest has one utterance a line: jq"),
        ("a_supervisions.jsonl", '{"recording_id": "x"}\n', r"no a_recordings\.jsonl with their recordings"),
        ("a.txt", "x", r"is not a corpus; a file of one ends in \.jsonl\.gz"),
        ("a.jsonl", "\ufeff{}", r"UTF-16|no field"),
    ],
)
def test_files_that_are_no_corpus(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_part(source_of(tmp_path / name), tmp_path / "cache")


def test_columns_of_ones_own(layout: LibriSpeech, tmp_path: Path) -> None:
    audio = next(Path(layout.path).rglob("*.flac"))
    (tmp_path / "a.csv").write_text(f'where;what;who\n"{audio}";"Ja; nein";7\n')
    cuts = read_part(
        source_of(tmp_path / "a.csv", {"audio": "where", "text": "what", "speaker": "who"}), tmp_path / "cache"
    )
    assert [(cut.supervisions[0].text, cut.supervisions[0].speaker) for cut in cuts] == [("Ja; nein", "7")]
    with pytest.raises(UserError, match=r"data\.columns has 'sound'; it renames audio, text"):
        source_of(tmp_path / "a.csv", {"sound": "where"})


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_broken_lines_are_counted_by_kind(layout: LibriSpeech, tmp_path: Path) -> None:
    (first, *_) = rows_of(read_part(layout, tmp_path / "cache"))
    good = json.dumps({"audio_filepath": first["audio"], "text": "café", "id": "good"}, ensure_ascii=False).encode()
    latin = good.replace("é".encode(), b"\xe9")
    lines = [
        b"\xef\xbb\xbf" + good,
        b'{"audio_filepath": "x',
        latin,
        b"[1]",
        b'{"text": "a"}',
        b'{"audio_filepath": "/a.wav"}',
        b"",
    ]
    (tmp_path / "part.jsonl").write_bytes(b"\r\n".join(lines))
    found, _ = check_part(source_of(tmp_path / "part.jsonl"), tmp_path / "cache")
    assert [cut.id for cut in found.cuts(tmp_path, tmp_path, Reading().text_case)] == ["good"]
    problems = {kind: (tally.count, tally.examples[0][0]) for kind, tally in found.found.problems.items()}
    assert problems == {
        "a line that is not JSON": (2, "line 2 of part.jsonl"),
        "text that is not UTF-8": (1, "line 3 of part.jsonl"),
        "no audio file named": (1, "line 5 of part.jsonl"),
        "no text": (1, "line 6 of part.jsonl"),
    }


def test_paths_of_another_machine_are_found_nearby(layout: LibriSpeech, tmp_path: Path) -> None:
    audio = next(Path(layout.path).rglob("*.flac")).relative_to(tmp_path)
    write_lines(tmp_path / "part.jsonl", [{"audio_filepath": f"/home/ada/data/{audio}", "text": "a"}])
    with pytest.raises(
        UserError, match=rf"is not there, but {tmp_path}/{audio} is: write {tmp_path} in place of /home/ada/data"
    ):
        read_part(source_of(tmp_path / "part.jsonl"), tmp_path / "cache")


def test_names_with_spaces_and_emoji_and_links_in_a_circle(layout: LibriSpeech, tmp_path: Path) -> None:
    folder = tmp_path / "my corpus 🎤" / "train"
    shutil.copytree(layout.path / "11", folder / "a b")
    (folder / "round").symlink_to(folder)
    assert len(read_part(source_of(folder), tmp_path / "cache")) == 2


def test_changed_audio_is_checked_again(layout: LibriSpeech, tmp_path: Path) -> None:
    rows = rows_of(read_part(layout, tmp_path / "cache"))
    part = source_of(write_manifest(tmp_path, [{**row, "duration": None} for row in rows]))
    assert len(read_part(part, tmp_path / "cache")) == 4
    soundfile.write(rows[0]["audio"], np.zeros(20_000), SAMPLE_RATE_HZ)
    assert read_part(part, tmp_path / "cache")[0].num_samples == 20_000
    Path(rows[0]["audio"]).unlink()
    with pytest.raises(UserError, match="1 utterances can't be used"):
        read_part(part, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["command", "url"])
def test_nothing_that_a_corpus_names_is_run(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    place = f"touch {marker}" if kind == "command" else "http://127.0.0.1:9/a.wav"
    row = {"id": "u", "audio": place, "text": "a", "speaker": "s", "duration": 1.0}
    for name in ("cuts", "supervisions", "manifest", "table", "Kaldi"):
        (folder := tmp_path / name).mkdir()
        bad = {**row, "audio": f"{place} |"} if name == "Kaldi" else row
        path = WRITERS[name](folder, [bad])
        if name in ("cuts", "supervisions"):
            for file in folder.iterdir():
                file.write_bytes(
                    gzip.compress(gzip.decompress(file.read_bytes()).replace(b'"file"', f'"{kind}"'.encode()))
                )
        problems = [one for one in source_of(path).claims() if isinstance(one, Problem)]
        assert problems or name in ("manifest", "table") or kind == "url"  # which is fetched, and is not there
        with pytest.raises(UserError, match="1 utterances can't be used"):
            read_part(source_of(path), tmp_path / "cache")
        (tmp_path / name / "pipe").mkdir()
        with pytest.raises(UserError, match="1 utterances can't be used"):
            read_part(
                source_of(write_manifest(folder / "pipe", [{**row, "audio": f"pipe:{place}"}])), tmp_path / "cache"
            )
    assert not marker.exists()
