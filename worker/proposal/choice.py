"""Which column is what: by what its values look like first, by how it is called second."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from worker.payload import FIELDS
from worker.proposal.sample import Column, Sample
from worker.proposal.word import OTHER_HALF, is_identifier, likeness, role_of, tokens
from worker.template import Expression

SIDS = {"interaction_sid": "KD", "channel_sid": "UO"}
_ROUTING = {"task_sid": "WT", "worker_sid": "WK", "reservation_sid": "WR"}
_TYPES = frozenset({"agent", "customer", "supervisor", "external", "unknown"})
_CLEAR_SHARE, _CLEAR_SHARE_NAMED = 0.8, 0.5
"""Of rows whose value clearly is a role: what makes a column one of roles, also one that is called a kind or a type."""
_TELLING_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Line:
    """A key of the mapping with its template, and the columns that this reads."""

    key: str
    template: str
    columns: tuple[str, ...] = ()


@dataclass(slots=True)
class Choice:
    """What is proposed. key: the column that tells rows apart; others: further ones that could.

    own: fields that have columns of their own names. fields: the mapping's other lines. missing: sids that no column
    holds. conversation: the column that a lookup of them would start from. roles: value → type, or None where a person
    has to say it; untold: how many values are not listed. media: the lines of media_properties; instead: an address
    that was not chosen; reach: the kind of address. routing: the lines of routing_properties.
    """

    key: str | None = None
    others: list[str] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    fields: list[Line] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    conversation: str | None = None
    roles: dict[str, str | None] | None = None
    untold: int = 0
    media: list[Line] = field(default_factory=list)
    instead: list[Line] = field(default_factory=list)
    reach: str | None = None
    spaced: bool = False
    routing: list[Line] = field(default_factory=list)

    @property
    def read(self) -> set[str]:
        """The columns that the proposal reads, but for those of fields' own names."""
        lines = (*self.fields, *self.media, *self.routing)
        return {column for line in lines for column in line.columns} | ({self.key} if self.key else set())

    def keeps(self, column: str) -> bool:
        """Tell whether a column is one of a field's own name, and stays it."""
        return any(_is_own(column, name) for name in self.own)


def choose(sample: Sample) -> Choice:
    """Return what each column is likely to be."""
    columns = [column for column in sample.columns if column.name]  # a template cannot name one without a name
    choice = Choice(own={field for field in FIELDS if any(_is_own(column.name, field) for column in columns)})
    strangers = [column for column in columns if not any(_is_own(column.name, field) for field in FIELDS)]
    _choose_sids(choice, strangers)
    _choose_type(choice, columns)
    if "media_properties" not in choice.own:
        _choose_media(choice, strangers)
    if "routing_properties" not in choice.own:
        _choose_routing(choice, strangers)
    _choose_key(choice, strangers, sample.records)
    return choice


def _is_own(name: str, field: str) -> bool:
    return name == field or (field.endswith("properties") and name.startswith(f"{field}."))


def _template(column: Column | str, *filters: str) -> str:
    name = column if isinstance(column, str) else column.name
    return f"{{{' | '.join((Expression(name).source, *filters))}}}"


def _line(key: str, *columns: Column) -> Line:
    names = tuple(column.name for column in columns)
    return Line(key, " ".join(_template(name) for name in names), names)


# ---- the fields -----------------------------------------------------------------------------------------------------


def _best(columns: Iterable[Column], meaning: str, kind: str, weaker: str = "") -> Column | None:
    """Return the column whose values look like this kind; without one, the one that is called so and says no other.

    weaker: a kind that counts as this one where the column is called so.
    """
    found = []
    for place, column in enumerate(columns):
        like = likeness(column.name, meaning)
        sure = column.kind == kind or (like > 0 and column.kind == weaker)
        if sure or (like and (column.kinds[kind] or not column.filled)):
            found.append((sure, column.filled > 0, like, column.filled, -place, column))
    return max(found)[-1] if found else None


def _choose_sids(choice: Choice, columns: Sequence[Column]) -> None:
    for name, kind in SIDS.items():
        if name in choice.own:
            continue
        if column := _best(columns, name, kind):
            choice.fields.append(_line(name, column))
        else:
            choice.missing.append(name)
    if choice.missing:
        rest = [column for column in columns if column.kind is None or column.kind == "number"]
        called = [(likeness(column.name, "conversation"), column) for column in rest]
        named = [column for like, column in sorted(called, key=lambda pair: -pair[0]) if like]
        named += [column for column in rest if is_identifier(column.name)]
        choice.conversation = named[0].name if named else None


def _choose_type(choice: Choice, columns: Sequence[Column]) -> None:
    if any(column.name == "type" and _is_told(column) for column in columns):
        return
    found = []
    for place, column in enumerate(columns):
        strong, weak = likeness(column.name, "role"), likeness(column.name, "kind")
        clear = _clear_share(column)
        telling = bool(strong) or clear >= (_CLEAR_SHARE_NAMED if weak else _CLEAR_SHARE)
        if column.words and column.kind is None and telling:
            found.append((clear, bool(strong), -place, column))
        elif not column.filled and (strong or weak):
            found.append((0.0, bool(strong), -place, column))
    if not found:
        if "type" not in choice.own:
            choice.fields.append(Line("type", "customer"))
        return
    column = max(found)[-1]
    choice.own.discard("type")
    if _is_told(column):
        choice.fields.append(_line("type", column))
        return
    words = column.words or {}
    filters = ("trim", "map:kind") if column.padded else ("map:kind",)
    choice.fields.append(Line("type", _template(column, *filters), (column.name,)))
    told = [word for word in words if _may_be_told(word)]
    choice.roles = {word: role_of(word) for word in told}
    choice.untold = len(words) - len(told)


def _is_told(column: Column) -> bool:
    """Tell whether all values are types already, as far as there are any to see."""
    return column.words is not None and set(column.words) <= _TYPES


def _clear_share(column: Column) -> float:
    words = column.words or {}
    clear = sum(records for word, records in words.items() if role_of(word))
    return clear / column.filled if words else 0.0


def _may_be_told(word: str) -> bool:
    """Tell a word for a role from what may be about one person."""
    return len(word) <= _TELLING_LENGTH and "@" not in word and sum(letter.isdigit() for letter in word) <= 2  # noqa: PLR2004


# ---- the properties -------------------------------------------------------------------------------------------------


def _choose_media(choice: Choice, columns: Sequence[Column]) -> None:
    if whole := _best(columns, "media_properties", "media"):
        choice.fields.append(_line("media_properties", whole))
        return
    email, phone = _best(columns, "email", "email"), _best(columns, "phone", "phone", "number")
    if phone and not (email and email.filled >= phone.filled):
        choice.reach, choice.spaced = "phone", phone.spaced
        choice.media = [_phone_line(phone)]
        choice.instead = [_line("address", email)] if email else []
    elif email:
        choice.reach = "email"
        choice.media = [_line("address", email)]
        choice.instead = [_phone_line(phone)] if phone else []
    elif identity := _called(columns, "identity"):
        choice.reach = "identity"
        choice.media = [_line("identity", identity)]
    if choice.reach:
        choice.media += _names(columns)
    if choice.reach == "email":
        choice.media += [Line("level", "to"), Line("type", "email")]


def _phone_line(column: Column) -> Line:
    whatsapp = "whatsapp" in "".join(tokens(column.name))
    filters = [*(["digits"] if column.spaced else []), *(["whatsapp"] if whatsapp else [])]
    return Line("address", _template(column, *filters), (column.name,))


def _called(columns: Iterable[Column], meaning: str) -> Column | None:
    """Return the column that is called so, if its values do not say that it is something else."""
    fit = [column for column in columns if column.kind in {None, "number"}]
    found = [(likeness(column.name, meaning), column.filled, -place, column) for place, column in enumerate(fit)]
    return max(found)[-1] if found and max(found)[0] else None


def _names(columns: Sequence[Column]) -> list[Line]:
    texts = [column for column in columns if column.kind is None]
    first, last, full = (_called(texts, meaning) for meaning in ("first", "last", "full"))
    for half in (first, last):
        if half and full and OTHER_HALF.get("".join(tokens(half.name))) == "".join(tokens(full.name)):
            first, last = (first or full), (last or full)
    parts = [first, last] if first and last else [full or first or last]
    found = [part for part in parts if part]
    return [_line("name", *found)] if found else []


def _choose_routing(choice: Choice, columns: Sequence[Column]) -> None:
    if whole := _best(columns, "routing_properties", "routing"):
        choice.fields.append(_line("routing_properties", whole))
        return
    for name, kind in _ROUTING.items():
        if column := _best(columns, name, kind):
            choice.routing.append(_line(name, column))


# ---- the key --------------------------------------------------------------------------------------------------------


def _choose_key(choice: Choice, columns: Sequence[Column], records: int) -> None:
    """A key is shown in reports, so an address or a name is none; a sid is a channel's or a person's, not a row's."""  # noqa: D401
    unique = [
        column
        for column in columns
        if column.keys is not None
        and column.filled == records > 1
        and column.kind in {None, "number"}
        and not any(likeness(column.name, meaning) for meaning in ("email", "phone", "first", "last", "full"))
    ]
    named = sorted(
        (column for column in unique if is_identifier(column.name)),
        key=lambda column: likeness(column.name, "conversation"),  # a conversation has several participants
    )
    choice.key = named[0].name if named else None
    choice.others = [column.name for column in unique if column.name != choice.key]
