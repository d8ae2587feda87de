"""WhatsApp's exports, as phones of different habits write them."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.importing.records import ChatFile, Unreadable
from app.importing.whatsapp_txt import DateOrder, read_chat

BOGOTA = ZoneInfo("America/Bogota")  # UTC-5, without summer time
NARROW = "\u202f"
MARK = "\u200e"


def read(text: str, order: DateOrder | None = None) -> ChatFile:
    return read_chat(text.encode(), "chat.txt", zone=BOGOTA, date_order=order)


def instant(day: int, hour: int, minute: int, second: int = 0, *, month: int = 7) -> int:
    """A local time of July 2025 in Bogotá, in µs."""
    moment = datetime(2025, month, day, hour, minute, second, tzinfo=BOGOTA)
    return int(moment.astimezone(UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ("28/7/25, 22:30 - Ana: hola", instant(28, 22, 30)),
        ("28/07/2025 22:30 - Ana: hola", instant(28, 22, 30)),
        ("28.07.25, 22:30 - Ana: hola", instant(28, 22, 30)),
        ("2025-07-28, 22:30 - Ana: hola", instant(28, 22, 30)),
        ("7/28/25, 10:30 PM - Ana: hola", instant(28, 22, 30)),
        (f"7/28/25, 10:30{NARROW}PM - Ana: hola", instant(28, 22, 30)),
        ("28/7/25, 10:30 p. m. - Ana: hola", instant(28, 22, 30)),
        (f"28/7/25, 12:05 a.{NARROW}m. - Ana: hola", instant(28, 0, 5)),
        ("28/7/25, 12:05 p. m. - Ana: hola", instant(28, 12, 5)),
        ("[28/07/25, 22:30:15] Ana: hola", instant(28, 22, 30, 15)),
        (f"{MARK}[28/07/2025, 10:30:15{NARROW}p.{NARROW}m.] Ana: hola", instant(28, 22, 30, 15)),
        ("[7/28/25, 10:30:15 PM] Ana: hola", instant(28, 22, 30, 15)),
        ("[2025-07-28, 22:30:15] Ana: hola", instant(28, 22, 30, 15)),
    ],
)
def test_every_habit_of_writing_a_time_is_read(line: str, at: int) -> None:
    (message,) = read(line).lines
    assert (message.at, message.author, message.text) == (at, "Ana", "hola")


def test_a_message_may_have_many_lines_and_colons() -> None:
    text = "28/7/25, 10:30 - Ana: uno: dos\ntres\n\n12:30 cuatro\n28/7/25, 10:31 - Ana: fin\n"
    first, last = read(text).lines
    assert first.text == "uno: dos\ntres\n\n12:30 cuatro"
    assert (last.line, last.text) == (5, "fin")


def test_what_whatsapp_says_itself_has_no_author() -> None:
    text = (
        "28/7/25, 10:29 - Los mensajes y las llamadas están cifrados de extremo a extremo.\n"
        f"[28/07/25, 10:30:00] Ana: {MARK}Los mensajes están cifrados.\n"
        "28/7/25, 10:31 - Ana: Se eliminó este mensaje.\n"
        "28/7/25, 10:32 - Ana: hola\n"
    )
    assert [line.kind for line in read(text).lines] == ["system", "system", "system", "text"]
    assert read(text).authors() == ("Ana",)


@pytest.mark.parametrize(
    ("said", "kind", "name", "caption"),
    [
        ("IMG-20250728-WA0001.jpg (file attached)", "image", "IMG-20250728-WA0001.jpg", ""),
        ("PTT-1.opus (archivo adjunto)\nescucha", "audio", "PTT-1.opus", "escucha"),
        (f"{MARK}<adjunto: 0001-PHOTO.jpg>", "image", "0001-PHOTO.jpg", ""),
        (f"{MARK}<attached: 0002-VIDEO.mp4>", "video", "0002-VIDEO.mp4", ""),
        ("menú del día.pdf (archivo adjunto)", "document", "menú del día.pdf", ""),
        ("<Media omitted>", "media", "", ""),
        ("<Multimedia omitido>", "media", "", ""),
        (f"{MARK}imagen omitida", "image", "", ""),
        (f"{MARK}audio omitido", "audio", "", ""),
        (f"menú.pdf • {MARK}2 páginas documento omitido", "document", "menú.pdf", ""),
        ("hola <Se editó este mensaje.>", "text", "", "hola"),
        ("la imagen omitida de ayer", "text", "", "la imagen omitida de ayer"),
    ],
)
def test_media_are_told_from_words(said: str, kind: str, name: str, caption: str) -> None:
    (message,) = read(f"28/7/25, 10:30 - Ana: {said}").lines
    assert (message.kind, message.file_name, message.text) == (kind, name, caption)


def test_one_date_that_can_be_read_in_one_way_settles_all() -> None:
    day_first = read("3/4/25, 10:30 - Ana: a\n13/4/25, 10:30 - Ana: b\n")
    assert (day_first.date_order, day_first.assumed_order) == ("dmy", False)
    month_first = read("3/4/25, 10:30 - Ana: a\n3/14/25, 10:30 - Ana: b\n")
    assert (month_first.date_order, month_first.assumed_order) == ("mdy", False)


def test_time_that_must_go_forward_settles_what_no_date_does() -> None:
    chat = read("2/1/25, 10:30 - Ana: a\n1/2/25, 10:30 - Ana: b\n")
    assert (chat.date_order, chat.assumed_order) == ("dmy", False)
    chat = read("1/2/25, 10:30 - Ana: a\n2/1/25, 10:30 - Ana: b\n3/1/25, 10:30 - Ana: c\n")
    assert chat.date_order == "mdy" or chat.assumed_order


def test_an_order_that_nothing_tells_is_said_to_be_assumed() -> None:
    chat = read("7/8/25, 10:30 - Ana: a\n7/8/25, 10:31 - Ana: b\n")
    assert (chat.date_order, chat.assumed_order) == ("dmy", True)
    assert not read("7/8/25, 10:30 - Ana: a\n", order="mdy").assumed_order


def test_dates_of_both_orders_are_refused() -> None:
    with pytest.raises(Unreadable, match=r"line 2 .* line 4 the month: .*--date-order"):
        read("3/4/25, 10:30 - A: a\n13/4/25, 10:30 - A: b\nc\n4/14/25, 10:30 - A: d\n")


@pytest.mark.parametrize("never", ["31/13/25", "45/1/2025", "0/0/25", "31/31/2025"])
def test_a_date_that_there_never_was_tells_no_order(never: str) -> None:
    chat = read(f"{never}, 10:30 - Ana: a\n28/7/25, 10:30 - Ana: b\n29/7/25, 10:30 - Ana: c\n")
    assert (chat.date_order, chat.assumed_order) == ("dmy", False)
    assert [line.text for line in chat.lines] == ["b", "c"]
    assert [rejected.line for rejected in chat.rejected] == [1]


@pytest.mark.parametrize("never", ["31/13/25, 10:00", "29/2/25, 10:00", "3/2/25, 25:03"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_never_was_has_no_say_in_what_makes_time_go_forward(never: str, place: int) -> None:
    lines = ["02/03/2025, 10:02 - Ana: a", "03/02/2025, 10:03 - Ana: b"]
    lines.insert(place, f"{never} - Ana: never")
    chat = read("\n".join(lines))
    assert (chat.date_order, chat.assumed_order) == ("mdy", False)
    assert [line.text for line in chat.lines] == ["a", "b"]


def test_a_date_that_does_not_exist_is_rejected_with_its_line_and_no_other() -> None:
    chat = read("28/7/25, 10:30 - Ana: a\n31/6/25, 10:30 - Ana: b\n29/7/25, 25:30 - Ana: c\n")
    assert [line.text for line in chat.lines] == ["a"]
    assert [rejected.line for rejected in chat.rejected] == [2, 3]


def test_what_comes_before_the_first_message_is_rejected() -> None:
    chat = read("un título\n28/7/25, 10:30 - Ana: a\n")
    assert [(r.line, r.reason) for r in chat.rejected] == [(1, "a line before the first message")]


@pytest.mark.parametrize("text", ["", "hola", "a: b", '{"573001112233": {}}'])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="no line begins"):
        read(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(Unreadable, match="UTF-8"):
        read_chat(b"\xff\xfe\x00", "chat.txt", zone=BOGOTA)


BREAKS = "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
WORDS = st.text(st.characters(codec="utf-8", exclude_characters=BREAKS))


@given(st.lists(WORDS, max_size=5))
def test_no_line_is_lost_whatever_people_write(texts: list[str]) -> None:
    lines = ["28/7/25, 10:30 - Ana: antes", *texts, "28/7/25, 10:31 - Ana: después"]
    chat = read("\n".join(lines))
    assert chat.lines[0].text.startswith("antes")
    assert sum(1 + line.text.count("\n") for line in chat.lines) <= len(lines)
    assert chat.lines[-1].line == len(lines)
