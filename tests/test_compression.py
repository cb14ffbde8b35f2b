"""Compressed inputs: the same records as plain, and no damage that looks like the end of the file."""

import errno
import io
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xopen import xopen

from tests.commands import QUICK, Ended, finish, flex_import, start
from tests.samples_of import sid
from worker.config import Source
from worker.emulator import Emulator, serve
from worker.errors import SourceError
from worker.model import Record
from worker.source import Input, Reader, batches, count, open_reader
from worker.source.compression import DamagedError, decompress, plain_suffix

FORMATS = ("gz", "bz2", "xz", "zst")
STDIN = Input("stdin", None)
Write = Callable[[str, bytes], Input]

ODD = 'a,b\r\n1,"x\r\ny"\r\n\r\n2,é\n3\n4,z'
ROWS = "a,b\n" + "".join(f"{number},{number * 7919 % 10007}\n" for number in range(20_000))


EMPTY_FRAME = bytes.fromhex("28b52ffd 2400 010000 99e9d851")


def compress(format_: str, content: bytes | str) -> bytes:
    """Return one member, or frame, with this inside."""
    if format_ == "zst" and not content:
        return EMPTY_FRAME  # what the zstd command writes; Python's would write nothing at all
    buffer = io.BytesIO()
    with xopen(buffer, "wb", threads=0, format=format_) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return buffer.getvalue()


ODD_IN = {format_: compress(format_, ODD) for format_ in FORMATS}
ROWS_IN = {format_: compress(format_, ROWS) for format_ in FORMATS}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that makes a file and gives it as an input, by its bare name."""

    def make(name: str, content: bytes) -> Input:
        path = tmp_path / name
        path.write_bytes(content)
        return Input(name, path)

    return make


def options(**given: Any) -> Source:
    """Make the [source] section of a config from some of its keys."""
    return Source.model_validate(given)


def read(source: Input, stdin: BinaryIO | None = None, **given: Any) -> list[Record]:
    """Read an input to its end under these settings."""
    with Reader(source, options(**given), stdin=stdin) as reader:
        return [record for batch in reader for record in batch]


def refusal(source: Input, **given: Any) -> str:
    """Return why an input cannot be read; counting must say the same."""
    with pytest.raises(SourceError) as caught:
        read(source, **given)
    with pytest.raises(SourceError) as counting:
        anyio.run(count, source, options(**given))
    assert str(counting.value) == str(caught.value)
    return str(caught.value)


# ---- the same records -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_inside_reads_as_if_it_were_plain(write: Write, format_: str) -> None:
    """Values, lines, texts, header: nothing tells a compressed input from the same one decompressed."""
    with Reader(write(f"a.csv.{format_}", ODD_IN[format_]), options()) as reader:
        records = [record for batch in reader for record in batch]
    assert reader.compression == format_
    assert (reader.header, reader.columns) == ("a,b\r\n", ("a", "b"))
    assert records == read(write("a.csv", ODD.encode()))
    assert [record.line for record in records] == [2, 5, 6, 7]


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_long_file_is_counted_and_read(write: Write, format_: str) -> None:
    """Many batches, many pieces; the count fits, and reading accepts its stamp."""
    source = write("a.csv", ROWS_IN[format_])
    counted = await count(source, options())
    assert counted.records == 20_000
    with Reader(source, options(), counted=counted) as reader:
        texts = [record.text for batch in reader for record in batch]
    assert "".join([reader.header, *texts]) == ROWS
    assert counted.stamp.size == len(ROWS_IN[format_])


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=4), st.sampled_from(FORMATS))
def test_any_members_one_after_the_other_are_one_input(texts: list[str], format_: str) -> None:
    """Members, of which some may be empty, continue each other, wherever they were cut."""
    content = b"".join(compress(format_, text) for text in texts) or compress(format_, "")
    file, compression = decompress(io.BufferedReader(_bytes(content)), None)
    with file:
        assert (file.read().decode(), compression) == ("".join(texts), format_)


def _bytes(content: bytes) -> io.RawIOBase:
    """Give bytes as a raw file."""
    return io.BytesIO(content)  # type: ignore[return-value]


@pytest.mark.parametrize("format_", FORMATS)
def test_another_encoding_may_be_inside(write: Write, format_: str) -> None:
    """UTF-16, with its mark, as from a spreadsheet."""
    source = write(f"a.csv.{format_}", compress(format_, "a\nJosé\n".encode("utf-16")))
    assert read(source, encoding="utf-16") == [Record(2, "José\n", {"a": "José"})]
    assert 'set source.encoding = "utf-16"' in refusal(source)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_bad_byte_is_found_where_it_is_inside(write: Write, format_: str) -> None:
    """The offset and the line are those of the decompressed data, and the message says so."""
    before = "a,b\n" + "1,2\n" * 50_000
    source = write(f"a.csv.{format_}", compress(format_, before.encode() + b"3,Jos\xe9\n"))
    assert refusal(source) == (
        f"a.csv.{format_}: line 50002: byte 0xe9 at offset 200009 (0x30d49) of the decompressed data is not utf-8-sig; "
        'it is probably Windows-1252: set source.encoding = "cp1252"'
    )


@pytest.mark.parametrize("format_", FORMATS)
def test_a_bad_byte_in_a_cut_off_file_is_no_change_of_it(write: Write, format_: str) -> None:
    """When the second look for a bad byte meets the cut, that is what is told, not a change."""
    content = compress(format_, b"a,b\n1,\xe9\n" + ROWS[:30_000].encode())
    assert "is cut off or damaged: " in refusal(write(f"a.csv.{format_}", content[:-9]))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("text", ["", "\n", "a,b\n"])
def test_nothing_inside_is_empty_as_plain_is(write: Write, format_: str, text: str) -> None:
    """A whole compressed file with nothing in it is refused like an empty one, and allowed like one."""
    source = write(f"a.csv.{format_}", compress(format_, text))
    assert "source.allow_empty = true" in refusal(source)
    assert read(source, allow_empty=True) == []


def test_no_program_is_started(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decompressing happens in this process: nothing to leave behind, nothing for Ctrl-C to hit."""
    monkeypatch.setattr(subprocess, "Popen", mock.Mock(side_effect=AssertionError))
    for format_ in FORMATS:
        assert len(read(write(f"a.csv.{format_}", ROWS_IN[format_]))) == 20_000


# ---- names and contents ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("export.csv.gz", ".csv"),
        ("export.NDJSON.ZST", ".ndjson"),
        ("export.csv", ".csv"),
        ("export.gz", ""),
        ("a.b/export", ""),
        (".gz", ""),
        ("export.csv.gz.xz", ".gz"),
    ],
)
def test_the_name_without_the_compression_tells_the_format(name: str, suffix: str) -> None:
    """One suffix of a compression is taken away, whatever its case."""
    assert plain_suffix(Path(name)) == suffix


@pytest.mark.parametrize("compression", FORMATS)
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "{x\n1\n", "csv"),
        ("a.ndjson", "x\n", "ndjson"),
        ("a", '{"x": 1}\n', "ndjson"),
        ("a", "x\n1\n", "csv"),
        ("a.dat", '{"x": 1}\n', "ndjson"),
    ],
)
def test_the_format_inside_comes_from_the_inner_name_or_the_content(
    write: Write, compression: str, name: str, text: str, expected: str
) -> None:
    """As for plain files, once the compression is taken away; a name without its suffix does as well."""
    for called in (f"{name}.{compression}", f"{name}.{compression.upper()}", name):
        with Reader(write(called, compress(compression, text)), options()) as reader:
            assert (reader.format, reader.compression) == (expected, compression)


def test_a_name_that_lies_is_overruled_by_the_content(write: Write) -> None:
    """Plain text called .gz is text; a gz called .xz is a gz."""
    plain = read(write("a.csv", ODD.encode()))
    for format_ in FORMATS:
        source = write(f"a.csv.{format_}", ODD.encode())
        assert read(source) == plain
    assert read(write("a.csv.xz", ODD_IN["gz"])) == plain


@pytest.mark.parametrize("header", ["BZh,b", "BZh9", "P*M,b", "(,b", "7zXZ"])
def test_text_that_begins_like_a_compressed_file_is_text(write: Write, header: str) -> None:
    """A column may be called BZh: what is taken for compressed cannot be the beginning of a text."""
    with Reader(write("a.csv", f"{header}\n1{',2' * header.count(',')}\n".encode()), options()) as reader:
        assert (reader.compression, reader.header) == (None, header + "\n")


def test_compressed_twice_is_no_text(write: Write) -> None:
    """Only the outer compression is taken off; what is inside is told for what it is: compressed, too."""
    for inner in FORMATS:
        twice = write(f"a.csv.{inner}.gz", compress("gz", ODD_IN[inner]))
        assert refusal(twice) == f"a.csv.{inner}.gz: is compressed twice; take the outer layer off"


def test_the_frames_of_pzstd_are_read(write: Write) -> None:
    """Frames to be skipped, at the beginning, between and at the end, hold no data."""
    skipped = bytes.fromhex("502a4d18 04000000 01020304")
    other = bytes.fromhex("5f2a4d18 00000000")
    frames = skipped + compress("zst", "a,b\n1,") + other + skipped + compress("zst", "2\n") + skipped
    assert read(write("a.csv", frames)) == [Record(2, "1,2\n", {"a": "1", "b": "2"})]


# ---- not whole ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_cut_off_anywhere_is_never_the_end(write: Write, format_: str) -> None:
    """At whatever byte it was cut, even before the first, the file is refused, under any encoding, empty allowed."""
    whole = ODD_IN[format_]
    for size in range(len(whole)):
        source = write(f"a.csv.{format_}", whole[:size])
        message = refusal(source, allow_empty=True, encoding="latin-1")
        assert message.startswith(f"a.csv.{format_}: ")
        assert "is cut off or damaged: its " + format_ in message
        assert message.endswith("; get the file again")


@pytest.mark.parametrize("format_", FORMATS)
def test_cut_off_in_a_later_member_is_never_the_end(write: Write, format_: str) -> None:
    """A second member that is not whole stops the reading; only between two members nothing can be seen."""
    whole = ODD_IN[format_] + b"".join(compress(format_, text) for text in ("\n5,6\n", "7,8\n"))
    readable = []
    for size in range(len(ODD_IN[format_]), len(whole) + 1):
        with suppress(SourceError):
            readable.append((size, len(read(write("a.csv", whole[:size])))))
    assert [rows for _, rows in readable] == [4, 5, 6]
    assert (readable[0][0], readable[-1][0]) == (len(ODD_IN[format_]), len(whole))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_cut_off_far_down_is_told_with_a_line(write: Write, format_: str, share: float) -> None:
    """The message has a line up to which there was something to read, and it is not beyond what is there."""
    whole = ROWS_IN[format_]
    message = refusal(write("a.csv", whole[: int(len(whole) * share)]))
    place, _, rest = message.partition(": is cut off or damaged: ")
    assert rest == f"its {format_} data ends too early; get the file again"
    assert place == "a.csv" or 2 <= int(place.removeprefix("a.csv: line ")) <= 20_002


@pytest.mark.parametrize("format_", ["gz", "bz2", "xz"])
def test_a_changed_byte_anywhere_changes_no_record(write: Write, format_: str) -> None:
    """Each byte damaged in turn: the file is refused, or it was a byte that says nothing, as a gz's time."""
    whole, plain = ODD_IN[format_], read(write("a.csv", ODD.encode()))
    refused = 0
    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]
        try:
            assert read(write(f"a.csv.{format_}", damaged)) == plain
        except SourceError:
            refused += 1
    assert refused >= len(whole) - 8


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("rest", [b"x", b"\n", b"garbage" * 9, b"\x1f\x8b", b"\xff" * 70_000, ROWS.encode()])
def test_something_else_behind_the_data_stops_the_reading(write: Write, format_: str, rest: bytes) -> None:
    """It may be another member, damaged: bz2 and lzma would pass over it in silence."""
    message = refusal(write("a.csv", ODD_IN[format_] + rest))
    assert "is cut off or damaged: " in message
    assert message.endswith("; get the file again")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_damaged_second_member_is_not_passed_over(write: Write, format_: str) -> None:
    """A first byte gone wrong makes a member look like garbage; its records must not vanish."""
    second = ROWS_IN[format_]
    assert "is cut off or damaged: " in refusal(write("a.csv", ROWS_IN[format_] + b"\0" + second[1:]))


def test_zeros_behind_a_gz_are_padding(write: Write) -> None:
    """Tapes and block devices leave them, and gzip accepts them."""
    assert len(read(write("a.csv.gz", ODD_IN["gz"] + bytes(512)))) == 4


@pytest.mark.parametrize("format_", ["gz", "xz"])
def test_a_compressed_file_that_changes_is_not_called_damaged(write: Write, format_: str) -> None:
    """A file that is still being written has changed: that is what its reader is told."""
    long = "".join(f"{number:0100},\n" for number in range(300))
    source = write("a.csv", compress(format_, "a,b\n" + long)[:-9])
    assert source.path
    with Reader(source, options()) as reader:
        os.utime(source.path, ns=(0, 0))
        with pytest.raises(SourceError, match=r"a\.csv: changed while it was read"):
            list(reader)


@pytest.mark.parametrize("format_", FORMATS)
async def test_the_stamp_is_that_of_the_compressed_file(write: Write, format_: str) -> None:
    """The same records, compressed anew, are another file than the one that was counted."""
    source = write("a.csv", ODD_IN[format_])
    counted = await count(source, options())
    write("a.csv", ODD_IN[format_] + compress(format_, ""))
    with pytest.raises(SourceError, match=r"a\.csv: changed since it was counted"):
        Reader(source, options(), counted=counted).open()


class FailingDisk(io.RawIOBase):
    """Gives its bytes and then an input/output error."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        """Tell io that this is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or fail when nothing is left."""
        size = self._content.readinto(buffer)
        if not size:
            raise OSError(errno.EIO, "Input/output error")
        return size


@pytest.mark.parametrize("format_", FORMATS)
def test_a_disk_that_fails_is_no_damage(format_: str) -> None:
    """The disk's error is told as the disk's: another copy of the file would not help."""
    disk = io.BufferedReader(FailingDisk(ROWS_IN[format_][:-9]))
    with pytest.raises(SourceError, match="cannot be read: Input/output error"):
        read(STDIN, disk)


# ---- closing, and stdin ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_the_file_is_closed_with_what_is_inside(write: Write, format_: str) -> None:
    """Closing the decompressed bytes closes the file; a file that is refused at once is closed too."""
    path = write(f"a.csv.{format_}", ODD_IN[format_]).path
    assert path
    stream = path.open("rb")
    file, _ = decompress(stream, path)
    assert file.fileno() == stream.fileno()
    assert not file.seekable()
    file.close()
    file.close()
    assert stream.closed
    stream = io.BufferedReader(_bytes(b""))
    with pytest.raises(DamagedError):
        decompress(stream, path)
    assert stream.closed


@pytest.mark.parametrize("format_", FORMATS)
async def test_leaving_early_closes_a_compressed_file(write: Write, format_: str) -> None:
    """Whoever stops in the middle leaves no open file behind."""
    async with open_reader(write("a.csv", ROWS_IN[format_]), options()) as reader:
        async for _ in batches(reader, len):
            break
    assert reader._text
    assert reader._text.closed
    assert reader.pull() is None


@pytest.mark.parametrize("format_", FORMATS)
def test_compressed_stdin_has_an_end_of_its_own(format_: str) -> None:
    """So a missing last line end inside says nothing: the file was like that before it was compressed."""
    records = read(STDIN, io.BytesIO(compress(format_, b"a\nx\ny")))
    assert [record.values for record in records] == [{"a": "x"}, {"a": "y"}]


@pytest.mark.parametrize("format_", FORMATS)
def test_compressed_stdin_is_read(format_: str) -> None:
    """Stdin is decompressed too: behind `zcat`, a file that is cut off would look like one that ends."""
    with Reader(STDIN, options(), stdin=io.BytesIO(ODD_IN[format_])) as reader:
        assert [record.line for batch in reader for record in batch] == [2, 5, 6, 7]
    assert reader.compression == format_
    with pytest.raises(SourceError, match=f"stdin: .*is cut off or damaged: its {format_} data ends too early; get"):
        read(STDIN, io.BytesIO(ROWS_IN[format_][:-1]))


@pytest.mark.parametrize("format_", FORMATS)
async def test_cancelling_does_not_wait_for_compressed_stdin(format_: str) -> None:
    """A read that waits for more compressed bytes is given up at once, and its thread ends."""
    reading, writing = os.pipe()
    os.write(writing, ROWS_IN[format_][: min(len(ROWS_IN[format_]) - 9, 60_000)])
    with os.fdopen(reading, "rb") as stdin:
        reader = Reader(STDIN, options(), stdin=stdin)
        with anyio.move_on_after(0.2):
            try:
                await anyio.to_thread.run_sync(reader.open, abandon_on_cancel=True)
                async for _ in batches(reader, len):
                    pass
                pytest.fail("the input was taken to be at its end")
            finally:
                reader.close()
        assert await anyio.to_thread.run_sync(_is_over, reader)
        assert reader.pull() is None
        assert not stdin.closed
    os.close(writing)


def _is_over(reader: Reader) -> bool:
    """Wait for a thread that may still be reading, and tell whether it has closed everything."""
    with reader._at_work:
        pass
    reader.close()
    return reader._text is not None and reader._text.closed


# ---- by the real command --------------------------------------------------------------------------------------------

HEADER = "interaction_sid,channel_sid,type,media_properties.address\n"
PEOPLE = HEADER + "".join(f"{sid('KD', n)},{sid('UO', n)},customer,p{n}@example.com\n" for n in range(200))


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def run(folder: Path, base_url: str, *words: str) -> Ended:
    """Run an import at full speed."""
    return await flex_import("run", *words, "--base-url", base_url, "--rate", "inf", cwd=folder, env=QUICK)


async def test_a_compressed_file_is_checked_and_imported(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A check sees its rows, a run sends them, and the same rows decompressed are then all done."""
    emulator, base_url = service
    (tmp_path / "a.csv.gz").write_bytes(compress("gz", PEOPLE))
    ended = await flex_import("check", "a.csv.gz", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "200" in ended.out
    ended = await run(tmp_path, base_url, "a.csv.gz")
    assert ended.code == 0, ended.err
    assert "200 rows = 200 created" in ended.out
    (tmp_path / "a.csv").write_text(PEOPLE)
    ended = await run(tmp_path, base_url, "a.csv")
    assert "Everything was already done" in ended.out
    assert emulator.stats.arrived == 200


async def test_of_a_cut_off_file_nothing_is_sent(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Counting finds it: exit 2, a message with what to do, and not even the good file beside it is begun."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(PEOPLE)
    (tmp_path / "b.csv.zst").write_bytes(compress("zst", PEOPLE)[:-5])
    ended = await run(tmp_path, base_url, "a.csv", "b.csv.zst")
    assert ended.code == 2
    assert "is cut off or damaged: its zst data ends too early; get the file again" in ended.err
    assert "Traceback" not in ended.err
    assert emulator.stats.arrived == 0
    ended = await flex_import("check", "b.csv.zst", cwd=tmp_path)
    assert (ended.code, "is cut off or damaged" in ended.err) == (2, True)


async def test_compressed_stdin_is_imported(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """`flex-import run - < a.csv.xz`."""
    _, base_url = service
    words = ("run", "-", "--base-url", base_url, "--rate", "inf")
    process = await start(*words, cwd=tmp_path, env=QUICK, stdin=subprocess.PIPE)
    ended = await finish(process, compress("xz", PEOPLE))
    assert ended.code == 0, ended.err
    assert "200 rows = 200 created" in ended.out
