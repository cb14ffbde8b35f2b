"""Makes the legacy exports again: `python samples/legacy/make_legacy.py`. Everybody in them is invented.

Each is what another system writes, with the damage that such files have: encodings, delimiters, footers, quoting,
repeated rows, numbers that a spreadsheet has spoilt. The configs beside them are written by hand.
"""

import csv
import gzip
import io
import json
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("Ada Abel", "Bo Brook", "Chen Dahl", "Dina Fox", "Emil Greco", "Femi Ito", "Gita Khan", "Hugo Lopez")
AGENTS = (2, 5, 8, 11)
UMLAUTS = ("Jörg Müller", "Änne Groß", "Zoë Weiß", "Uwe Schäfer", "Ömer Demir", "Käthe Jäger")


def sid(prefix: str, sample: str, number: int) -> str:
    """Return an invented sid: always the same one for the same place."""
    return f"{prefix}{random.Random(f'{prefix} {sample} {number}').getrandbits(128):032x}"


def table(rows: Iterable[Sequence[object]], *, delimiter: str, end: str, quoting: int = csv.QUOTE_MINIMAL) -> str:
    """Return a CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def avaya() -> dict[str, bytes]:
    """Write a German list: semicolons, Windows-1252, numbers as people dial them."""
    rows: list[list[str]] = [
        ["Vorgangsnr.", "Gesprächs-SID", "Kanal-SID", "Rolle", "Name", "Kennung", "Rufnummer", "Angerufen", "Wartezeit"]
    ]
    for number in range(12):
        agent = number in AGENTS
        rows.append([
            f"{4711 + number}",
            sid("KD", "avaya", number // 2),
            sid("UO", "avaya", number // 2),
            "Agent" if agent else "Kunde ",
            UMLAUTS[number % len(UMLAUTS)],
            f"agent.{number}" if agent else "",
            "" if agent else f"0171 39200{number:02}",
            "" if agent else "(030) 23125-101",
            f"{number},5",
        ])  # fmt: skip
    rows[4][6] = "0171 39"  # too short to be a number
    rows[6][3] = "Teamleitung"  # a role that the value map does not know
    rows[9][2] = "k. A."  # no channel
    return {"Gespraeche_2026-10.csv": table(rows, delimiter=";", end="\r\n").encode("cp1252")}


def nice() -> dict[str, bytes]:
    """Write a tab-separated export in UTF-16 with notes of several lines and a footer."""
    rows: list[list[str]] = [
        ["Contact ID", "Interaction SID", "Channel SID", "Participant Role", "Party", "E-mail", "Notes"]
    ]
    notes = {3: 'asked for "the usual"\r\ncalled back\tlater'}
    for number in range(10):
        agent = bool(number % 2)
        rows.append([
            f"{900100 + number // 2}",
            sid("KD", "nice", number // 2),
            sid("UO", "nice", number // 2),
            "AGENT" if agent else "EXTERNAL_CUSTOMER",
            NAMES[number % len(NAMES)],
            f"agent{number}@example.com" if agent else f"Customer.{number}@Example.COM",
            notes.get(number, ""),
        ])  # fmt: skip
    rows[8][3] = "MONITOR"
    rows[5][5] = "customer.4(at)example.com"  # no address; nothing can be certain about it
    text = table(rows, delimiter="\t", end="\r\n") + "\r\nTotal Records: 10\r\n"
    return {"Contacts.txt": text.encode("utf-16")}


def genesys() -> dict[str, bytes]:
    """Write nested objects, one participant a line."""
    lines = []
    purposes = ("customer", "agent", "external", "acd", "customer", "agent")
    for number, purpose in enumerate(purposes):
        one: dict[str, object] = {
            "conversationId": f"c-{number // 2:04}",
            "participant": {"id": f"p-{number}", "purpose": purpose, "name": NAMES[number], "wrapup": None},
            "attributes": {
                "flex": {"interaction": sid("KD", "genesys", number // 2), "channel": sid("UO", "genesys", number // 2)}
            },
            "addresses": [{"email": f"p{number}@example.com", "level": ("to", "cc")[number % 2]}],
        }
        if purpose == "agent":
            one["addresses"] = []
            one["routing"] = {"task_sid": sid("WT", "genesys", number), "worker_sid": sid("WK", "genesys", number)}
        lines.append(json.dumps(one, ensure_ascii=False))
    lines.append(lines[0][: len(lines[0]) // 2])  # the export was cut off here, and began again
    lines.append(lines[0])
    return {"conversations.ndjson": ("\n".join(lines) + "\n").encode()}


def five9() -> dict[str, bytes]:
    """Write a CSV that is all in quotes, compressed, with repeated rows and an id that was given twice."""
    rows: list[list[str]] = [["CALL ID", "DISPOSITION", "INTERACTION", "CHANNEL", "NAME", "EMAIL"]]
    special = {0: 'Ada "the count" Abel', 1: "Brook, Bo", 2: "Chen\nDahl"}
    rows += [
        [
            f"30000{number}",
            "Transferred to Flex",
            sid("KD", "five9", number),
            sid("UO", "five9", number),
            special.get(number, NAMES[number]),
            f"caller{number}@example.com",
        ]
        for number in range(8)
    ]
    rows.append(list(rows[2]))  # the same record again
    rows.append([*rows[3][:5], "somebody.else@example.com"])  # the same id, another person
    content = table(rows, delimiter=",", end="\n", quoting=csv.QUOTE_ALL).encode()
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", mtime=0, fileobj=packed) as stream:
        stream.write(content)
    return {"call_log.csv.gz": packed.getvalue()}


def excel() -> dict[str, bytes]:
    """Write what a spreadsheet makes of phone numbers, empty columns and lines."""
    rows: list[list[str]] = [["Ref", "Interaction", "Channel", "Mobile", "Our number", "", ""]]
    mobiles = ("+447700900101", "447700900102", "4.47701E+11", "447700900104", "+447700900105", "4.477E+11")
    for number, mobile in enumerate(mobiles):
        kd, uo = sid("KD", "excel", number), sid("UO", "excel", number)
        rows.append([f"R{number + 1}", kd, uo, mobile, "+441632960000", "", ""])
    rows.insert(4, [""] * 7)
    text = table(rows, delimiter=",", end="\r\n") + ",,,,,,\r\n\r\n"
    return {"participants.csv": text.encode("utf-8-sig")}


def zendesk() -> dict[str, bytes]:
    """Write tickets that know their conversation only, and the list that knows its sids."""
    tickets: list[list[object]] = [["Ticket", "ConvID", "Requester", "Requester e-mail"]]
    tickets += [[number, f"conv-{number}", NAMES[number], f"req{number}@example.com"] for number in range(6)]
    known: list[list[str]] = [["conversation_id", "interaction_sid", "channel_sid", "moved_at"]]
    for number in (0, 1, 2, 3, 5):
        kd, uo = sid("KD", "zendesk", number), sid("UO", "zendesk", number)
        known.append([f"conv-{number}", kd, uo, "2026-10-31"])
    known.append(["conv-3", sid("KD", "zendesk", 3), sid("UO", "zendesk", 33), "2026-11-01"])  # moved twice: which one?
    known.append([*known[1][:3], "2026-11-01"])  # the same sids again: no matter
    return {
        "tickets.csv": table(tickets, delimiter=",", end="\n").encode(),
        "interactions.csv": table(known, delimiter=",", end="\n").encode(),
    }


def nightly() -> dict[str, bytes]:
    """Write files of two kinds, for one config with profiles."""
    place = [f"{sid('KD', 'nightly', number)};{sid('UO', 'nightly', number)}" for number in range(4)]
    agents = "Nummer;KD;UO;Name\r\n" + "".join(f"{7 + n};{place[n]};{UMLAUTS[n]}\r\n" for n in range(2))
    customers = [
        {"id": n, "KD": place[n].split(";")[0], "UO": place[n].split(";")[1], "mail": f"c{n}@example.com"}
        for n in range(2, 4)
    ]
    lines = "".join(json.dumps(one) + "\n" for one in customers)
    return {"agents_2026-11-25.csv": agents.encode("cp1252"), "customers_2026-11-25.ndjson": lines.encode()}


SAMPLES = {made.__name__: made for made in (avaya, nice, genesys, five9, excel, zendesk, nightly)}


def main(target: Path) -> None:
    """Write every sample into a folder of its name."""
    for name, make in SAMPLES.items():
        for file, content in make().items():
            (target / name).mkdir(parents=True, exist_ok=True)
            (target / name / file).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else HERE)
