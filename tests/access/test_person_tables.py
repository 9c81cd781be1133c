"""The tables about people: what they say, as CSV and Parquet, and what is refused, by row."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mfmc_ray import discreet
from mfmc_ray.access.approvals import Approvals
from mfmc_ray.access.decide import AccessError
from mfmc_ray.access.explicit import Consent, Explicit
from mfmc_ray.access.groups import GROUP, VIEWER, Groups, Member, Party
from mfmc_ray.access.lists import PeopleList
from mfmc_ray.access.proxy import Proxy
from mfmc_ray.access.rules import EVERYBODY, Rules

ID = "ab" * 32
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a table of this name; its path."""

    def write(text: str, name: str = "table.csv") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def reason(model: Any, person: str = "ada", image_id: str = ID, path: str = "a/b.jpg") -> str | None:
    """Why a person is kept, or "not: " and why they are denied, or None."""
    said = model.says(person, image_id, path)
    return f"not: {said.denied}" if said.denied else said.reason


# what they say


def test_consents_name_image_and_person(write: Write) -> None:
    model = Explicit.load(write(f"image,person,allow\n{ID.upper()},ada,yes\na/b.jpg,bea,\nc.jpg,ada,true\nc.jpg,ada,no\n"))
    assert reason(model) == "explicit:1"
    assert reason(model, "bea") == "not: explicit:2"
    assert reason(model, "cyn") is None
    assert reason(model, path="c.jpg", image_id="") == "not: explicit:4"
    assert reason(Explicit.load(write("row,image,person,note\n70,a/b.jpg,ada,said so\n")), "ada") == "explicit:70"


def test_names_are_compared_composed_and_trimmed(write: Write) -> None:
    assert reason(Explicit.load(write("image,person\na/b.jpg, Zoe\u0301 \n")), "Zo\u00e9") == "explicit:1"


def test_csv_and_parquet_say_the_same(write: Write, tmp_path: Path) -> None:
    text = Explicit.load(write("image,person,allow,note\na.jpg,7,true,x\nb.jpg,8,,\n"))
    columns = {"image": ["a.jpg", "b.jpg"], "person": [7, 8], "allow": [True, None], "note": [{"any": 1}, None]}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    parquet = Explicit.load(str(tmp_path / "table.parquet"))
    assert (
        text.rows == parquet.rows == {("a.jpg", "7"): (Consent(1, "a.jpg", "7", True),), ("b.jpg", "8"): (Consent(2, "b.jpg", "8", False),)}
    )
    assert text.digest == parquet.digest


def test_a_tag_counts_if_its_maker_is_trusted(write: Write) -> None:
    tags = write("image,person,by\na/b.jpg,ada,dan\na/b.jpg,bea,eve\na/b.jpg,cyn,cyn\na/b.jpg,dan,eve\n", "tags.csv")
    trust = write(
        "person,trusts,allow\nada,dan,yes\nbea,group:friends,yes\nbea,dan,yes\ndan,group:friends,yes\ndan,viewer:eve,no\n", "trust.csv"
    )
    groups = Groups.load(write("group,member\nfriends,group:close\nclose,eve\n", "groups.csv"))
    model = Proxy.load(tags, trust, groups)
    assert [reason(model, person) for person in ("ada", "bea", "cyn", "dan", "eve")] == [
        *("proxy:tags:1,trust:1", "proxy:tags:2,trust:2", "proxy:tags:3"),  # who tags themselves needs no trust
        *(None, None),  # a group is trusted, but not she
    ]
    denied = Proxy.load(write("image,person,by,allow\na/b.jpg,ada,ada,true\na/b.jpg,ada,eve,false\n", "tags.csv"), trust, groups)
    assert reason(denied) == "not: proxy:tags:2"


def test_rules_are_about_audiences(write: Write) -> None:
    rules = write(
        "person,audience,image,allow\n"
        "ada,everyone,public/*,true\nada,group:friends,,true\nada,viewer:dan,,false\n"
        "bea,group:close,,true\nbea,viewer:dan,,true\nbea,viewer:fay,a/b.jpg,true\n"
        "cyn,everyone,a[1].jpg,true\n"
    )
    groups = Groups.load(write("group,member\nfriends,group:close\nfriends,dan\nclose,eve\nclose,viewer:fay\nnone,\n", "groups.csv"))
    everyone, friends, close, none = (
        Rules.load(rules, party, groups) for party in (EVERYBODY, *(Party(GROUP, name) for name in ("friends", "close", "none")))
    )
    eve = Rules.load(rules, Party(VIEWER, "eve"), groups)
    assert reason(everyone, path="public/x/y.jpg") == "not: rules:3"  # everyone is dan, too
    assert reason(close, path="public/x/y.jpg") == "rules:1"
    assert reason(close) == "rules:2"
    assert reason(friends) == "not: rules:3"
    assert reason(friends, "bea") == "rules:4,5"
    assert reason(eve, "bea", path="elsewhere.jpg") == "rules:4"
    assert reason(none, "bea") is None
    assert [reason(everyone, "cyn", path=path) for path in ("a[1].jpg", "a1.jpg")] == ["rules:7", None]


def test_a_reason_names_ten_rows_at_most(write: Write) -> None:
    rules = write("person,audience\n" + "".join(f"ada,viewer:v{n}\n" for n in range(14)))
    groups = Groups.load(write("group,member\n" + "".join(f"all,v{n}\n" for n in range(14)), "groups.csv"))
    assert reason(Rules.load(rules, Party(GROUP, "all"), groups)) == "rules:1,2,3,4,5,6,7,8,9,10 and 4 more"


def test_lists_name_people(write: Write) -> None:
    file = write("row,person\n9,ada\n4,ada\n5,bea\n")
    assert reason(PeopleList.load("always", file)) == "always:4"
    assert reason(PeopleList.load("never", file), "bea") == "not: never:5"
    assert reason(PeopleList.load("never", file), "cyn") is None


def test_digests_are_over_all_that_decides(write: Write) -> None:
    def digest(rules: str, groups: str = "g,dan", audience: Party = EVERYBODY) -> str:
        made = Groups.load(write(f"group,member\n{groups}\n", "groups.csv"))
        return Rules.load(write("person,audience,image\n" + rules), audience, made).digest

    first = digest("ada,group:g,\n")
    assert digest("ada , group:g,\n", "g,viewer:dan\nother,eve") == first  # the other group decides nothing
    others = [
        digest("ada,group:g,a.jpg\n"),
        digest("bea,group:g,\n"),
        digest("ada,group:g,\n", "g,eve"),
        digest("ada,group:g,\n", audience=Party(VIEWER, "dan")),
        digest("ada,group:g,\n", "g,group:h\nh,dan\nh,eve"),
    ]
    assert len({first, *others}) == 6


def test_the_tables_of_the_documentation_can_be_copied(write: Write) -> None:
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    files = {name: write(text, name) for name, text in re.findall(r"cat > (\S+) <<'END'\n(.*?)END\n", page, re.DOTALL)}
    groups = Groups.load(files["groups.csv"])
    explicit = Explicit.load(files["consents.csv"])
    proxy = Proxy.load(files["tags.csv"], files["trust.csv"], groups)
    family = Rules.load(files["rules.csv"], Party(GROUP, "family"), groups)
    at = {"path": "holiday/beach.jpg"}
    assert [reason(explicit, "ada", **at), reason(explicit, "bea", **at)] == ["explicit:1", "not: explicit:2"]
    assert [reason(proxy, "ada", **at), reason(proxy, "bea", **at)] == ["proxy:tags:1,trust:1", None]  # eve is no family
    assert [reason(family, "ada", **at), reason(family, "bea", **at)] == ["rules:2", "rules:4"]
    (approvals,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    assert len(Approvals.load(write(approvals))) == 3


# what is refused


TAGS = "image,person,by\n"


def proxy(tags: str, trust: str = "") -> Callable[[Write], object]:
    return lambda write: Proxy.load(write(tags, "tags.csv"), write(f"person,trusts\n{trust}", "trust.csv"), Groups())


def rules(text: str, groups: str = "group,member\nfriends,dan\n", audience: Party = EVERYBODY) -> Callable[[Write], object]:
    return lambda write: Rules.load(write(text, "rules.csv"), audience, Groups.load(write(groups, "groups.csv")))


def consents(text: str) -> Callable[[Write], object]:
    return lambda write: Explicit.load(write(text, "consents.csv"))


def groups(*rows: str) -> Callable[[Write], object]:
    return lambda write: Groups.load(write("group,member\n" + "\n".join(rows) + "\n", "groups.csv"))


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (consents("image,persn\n"), "consents.csv: unknown column 'persn'; there may be: image, person, allow, row, note"),
        (consents("image;person\n"), "unknown column 'image;person'; there may be: .* \\(with commas between them\\)"),
        (consents(""), "consents.csv: wanted the columns image and person"),
        (consents("image,allow\n"), "consents.csv: wanted the columns image and person"),
        (consents("image,person\na.jpg,ada\na.jpg\n,ada\na.jpg, \n"), "row 2: 1 cells, but 2 columns; row 3: no image.*; row 4: no person"),
        (consents("image,person,allow\na.jpg,ada,perhaps\n"), "row 1: allow 'perhaps': wanted true or false"),
        (consents("image,person\na.jpg,group:friends\n"), "row 1: person 'group:friends': wanted the id of one person"),
        (consents("image,person\n/home/ada/a.jpg,ada\n"), "row 1: image '/home/ada/a.jpg': wanted an image_id"),
        (consents("image,person,row\na.jpg,ada,1\nb.jpg,ada,1\n"), "row 2: another row has the number 1, too"),
        (proxy("image,person\n"), "tags.csv: wanted the columns image and person and by"),
        (proxy(f"{TAGS}a.jpg,ada,group:friends\n"), "tags.csv: row 1: by 'group:friends': wanted a name or viewer:NAME"),
        (proxy(TAGS, "ada,everyone\n"), "trust.csv: row 1: trusts 'everyone': wanted .*nobody is called everyone"),
        (proxy(TAGS, "ada,dan\nada,group:x\n"), "trust.csv: row 2: there is no group 'x'; --groups FILE says who"),
        (rules("person,audience\nada,friends\n"), "rules.csv: row 1: audience 'friends': wanted everyone or group:NAME or viewer:NAME"),
        (rules("person,audience\nada,group:\n"), "rules.csv: row 1: audience 'group:': wanted"),
        (
            rules("person,audience\nada,everyone\nada,group:x\nada,group:y\n"),
            "row 2: there is no group 'x'; there are: friends; row 3: .*'y'",
        ),
        (rules("person,audience\n", audience=Party(GROUP, "x")), "--audience group:x: there is no group 'x'; there are: friends"),
        (groups("a,dan", "everyone,eve"), "row 2: group 'everyone': wanted a name or group:NAME, and nobody is called everyone"),
        (groups("a,group:b"), "groups.csv: row 1: there is no group 'b'; there are: a"),
        (groups("a,dan", "a,group:a"), "groups.csv: row 2: a group cannot be in itself: a > a; take one of these rows out"),
        (groups("a,group:b", "b,eve", "b,group:c", "c,group:a"), "groups.csv: rows .*: a group cannot be in itself: .* > "),
        (groups("a,b:c"), "row 1: member 'b:c': wanted a name or viewer:NAME or group:NAME"),
    ],
)
def test_mistakes_are_named_by_row(write: Write, load: Callable[[Write], object], says: str) -> None:
    with pytest.raises(AccessError, match=says):
        load(write)


def test_a_cycle_is_named_with_its_rows(write: Write) -> None:
    with pytest.raises(AccessError) as caught:
        groups("x,dan", "a,group:b", "b,group:c", "b,eve", "c,group:a")(write)
    said = re.search(r"rows (.*): a group cannot be in itself: (.*); take", str(caught.value))
    assert said is not None
    assert {int(row) for row in said[1].split(",")} == {2, 3, 5}
    assert said[2] in ("a > b > c > a", "b > c > a > b", "c > a > b > c")


def test_deep_nesting_is_no_trouble() -> None:
    links = [Member(n, f"g{n}", Party(GROUP, f"g{n + 1}")) for n in range(3000)]
    found = Groups.of([*links, Member(3000, "g3000", Party(VIEWER, "dan"))])
    assert found.viewers["g0"] == {"dan"}


def test_parquet_of_other_kinds_is_refused_by_row(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table({"image": [1, 2], "person": [["ada"], None]}), file)
    with pytest.raises(AccessError, match=r"row 1: no image.*; row 2: no image"):
        Explicit.load(str(file))
    pq.write_table(pa.table({"image": ["a", "b"], "person": [[1], None], "row": [1.5, 2.0]}), file)
    with pytest.raises(AccessError, match=r"row 1: row 1.5: wanted a whole number.*; row 2: row 2.0"):
        Explicit.load(str(file))
    pq.write_table(pa.table({"image": ["a", "b"], "person": [[1], None]}), file)
    with pytest.raises(AccessError, match=r"row 1: person \[1\]: wanted a name; row 2: no person"):
        Explicit.load(str(file))


def test_all_faults_are_counted_and_ten_named(write: Write) -> None:
    with pytest.raises(AccessError, match=r"row 1: .*; row 10: .*; and 4 more rows$"):
        consents("image,person\n" + "a.jpg,\n" * 14)(write)
    with pytest.raises(AccessError, match=r"row 1: .*; row 10: .*; and 2 more rows$"):
        rules("person,audience\n" + "ada,group:x\n" * 12)(write)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from('image,person\n"\r0;\x00\ufeffé:*'), max_size=60), head=st.booleans())
def test_whatever_is_in_a_file_it_is_read_or_refused(write: Write, text: str, head: bool) -> None:
    file = write(("person,audience,image,row\n" if head else "") + text)
    with contextlib.suppress(AccessError):
        Rules.load(file, EVERYBODY, Groups())


def test_what_is_printed_names_nobody(write: Write) -> None:
    """A cell may be a name; whoever wants to see it says --verbose."""
    for load in (
        consents("image,person,allow\n/home/ada-example/a.jpg,ada-example,ada-example\n"),
        consents("ada-example,a.jpg\n"),  # no heading
        rules("person,audience\nada,ada-example\n"),
        groups("ada-example:x,dan"),
        proxy(f"{TAGS}a.jpg,bob,x:ada-example\n"),
    ):
        with pytest.raises(AccessError) as caught:
            load(write)
        assert "ada-example" in str(caught.value)
        assert "ada-example" not in discreet.told(caught.value)
        assert "csv: " in discreet.told(caught.value)
