"""Allow, block, none, prefer and hooks: from the environment and by API."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from genmode.errors import ParameterError
from genmode.plugins.discovery import Entry
from genmode.plugins.identity import REGISTERED
from genmode.plugins.settings import Settings, closest, matches

pytestmark = pytest.mark.no_torch


def entry(name: str = "dry", home: str = "plug", kind: str = "processors") -> Entry:
    return Entry(kind, name, home, "1.0", "m:C", "/p")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("dry", True),
        ("processors:dry", True),
        ("Plug", True),
        ("plug", True),
        ("criteria:dry", False),
        ("dr", False),
        ("plug:dry", True),
        ("PLUG:*", True),
        ("plug:xtc", False),
        ("other:dry", False),
    ],
)
def test_a_pattern_names_a_component_with_or_without_its_kind_or_a_distribution(pattern: str, expected: bool) -> None:
    assert matches(pattern, entry()) is expected


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(), None),
        (Settings(block=("dry",)), "blocked by 'dry'"),
        (Settings(block=("plug",), allow=("dry",)), "blocked by 'plug'"),
        (Settings(allow=("dry",)), None),
        (Settings(allow=("xtc",)), "`allow` does not name it"),
        (Settings(none=True), "`none` is set"),
        (Settings(none=True, allow=("plug",)), None),
    ],
)
def test_what_may_be_loaded(settings: Settings, reason: str | None) -> None:
    found = settings.refusal(entry())
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.parametrize("home", ["genmode", REGISTERED])
def test_built_ins_and_registered_ones_are_allowed_unless_blocked(home: str) -> None:
    assert Settings(none=True, allow=("other",)).refusal(entry(home=home)) is None
    assert Settings(block=("dry",)).refusal(entry(home=home)) is not None


def test_hook_plugins_are_switched_on_by_name() -> None:
    tracer = entry("tracer", kind="hooks")
    assert "switched on by name" in str(Settings().refusal(tracer))
    for pattern in ("tracer", "hooks:tracer", "plug"):
        assert Settings(hooks=(pattern,)).refusal(tracer) is None
    assert Settings(hooks=("tracer",), none=True).refusal(tracer) is not None
    assert Settings().refusal(entry("tracer", "genmode", "hooks")) is None


GOOD, EVIL = entry("good", "good-dist"), entry("good-dist", "evil-dist")
WATCHER, FALSE_WATCHER = entry("watcher", "good-dist", "hooks"), entry("good-dist", "evil-dist", "hooks")


def allowed(settings: Settings, *entries: Entry, distributions: frozenset[str] = frozenset()) -> list[str]:
    """Names of the entries that may be loaded beside each other."""
    unclear = settings.unclear(entries, distributions | {one.distribution for one in entries})
    return [f"{one.distribution}:{one.name}" for one in entries if settings.refusal(one, unclear) is None]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("good-dist", []),
        ("Good_Dist", ["good-dist:good"]),  # no component's name, since these are compared exactly
        ("good-dist:*", ["good-dist:good"]),
        ("good_dist:good", ["good-dist:good"]),
        ("evil-dist:good-dist", ["evil-dist:good-dist"]),
        ("processors:good", ["good-dist:good"]),
        ("good", []),
    ],
)
def test_a_name_that_two_distributions_may_be_meant_by_allows_neither(pattern: str, expected: list[str]) -> None:
    assert allowed(Settings(allow=(pattern,)), GOOD, EVIL) == expected
    hooks = [one.replace("good-dist:good", "good-dist:watcher") for one in expected]
    pattern = {"good_dist:good": "good-dist:watcher", "processors:good": "hooks:watcher", "good": "watcher"}.get(
        pattern, pattern
    )
    assert allowed(Settings(hooks=(pattern,)), WATCHER, FALSE_WATCHER) == hooks


def test_a_distribution_that_takes_a_components_name_is_not_allowed_by_it() -> None:
    taker = entry("anything", "good")
    assert allowed(Settings(allow=("good",)), GOOD, taker) == []
    assert allowed(Settings(allow=("good",)), GOOD, distributions=frozenset({"good"})) == []
    assert allowed(Settings(allow=("good-dist:good",)), GOOD, taker) == ["good-dist:good"]


def test_a_name_of_two_distributions_in_different_kinds_allows_neither_and_blocks_both() -> None:
    twin = entry("good", "evil-dist", "strategies")
    assert allowed(Settings(allow=("good",)), GOOD, twin) == []
    assert allowed(Settings(allow=("processors:good",)), GOOD, twin) == ["good-dist:good"]
    assert allowed(Settings(block=("good",)), GOOD, twin) == []
    assert allowed(Settings(block=("good-dist",)), GOOD, EVIL) == []


def test_what_is_hidden_keeps_its_names() -> None:
    taker = entry("good", "evil-dist")
    for hidden in ((GOOD,), (WATCHER, GOOD)):
        assert ("allow", "good") in Settings(allow=("good",)).unclear([taker], ["evil-dist"], hidden)
    named = Settings(allow=("processors:good",))
    assert named.unclear([GOOD, taker]) == {}  # a conflict, which says so itself
    assert named.unclear([GOOD], ["good-dist"], [GOOD._replace(version="0.9")]) == {}
    assert ("allow", "processors:good") in named.unclear([taker], ["evil-dist"], [GOOD])


def test_what_is_unclear_is_said_with_each_reading() -> None:
    settings = Settings(allow=("good-dist",))
    (why,) = settings.unclear([GOOD, EVIL]).values()
    assert "evil-dist and good-dist may be meant" in why
    assert "write 'evil-dist:good-dist' or 'good-dist:*'" in why
    assert settings.refusal(EVIL, {("allow", "good-dist"): why}) == why
    assert settings.unclear([GOOD]) == settings.unclear([]) == {}


@pytest.mark.parametrize("setting", ["allow", "hooks"])
def test_a_components_name_alone_trusts_nobody(setting: str) -> None:
    """The distribution that is meant may not be installed, and somebody else's component be called so."""
    taker = entry("good-dist", "evil-dist", "hooks")
    settings = Settings(**{setting: ("good-dist",)})  # type: ignore[arg-type]
    assert allowed(settings, taker) == []
    (why,) = settings.unclear([taker]).values()
    assert why == (
        f"the setting `{setting}` names 'good-dist', a component's name that does not say whose it is, so that it "
        "switches on nothing; write 'evil-dist:good-dist'"
    )
    own = entry("same", "same", "hooks")  # its distribution's name as well
    assert allowed(Settings(allow=("same",), hooks=("same",)), own) == ["same:same"]
    mine = entry("watcher", REGISTERED, "hooks")
    assert allowed(Settings(**{setting: ("watcher",)}), mine) == ["registered:watcher"]  # type: ignore[arg-type]


def test_environment() -> None:
    environ = {
        "GENMODE_PLUGINS": "none",
        "GENMODE_ALLOW": "dry, my_plug,,dry",
        "GENMODE_BLOCK": "xtc",
        "GENMODE_PREFER": "sample=My.Plug, strategies:greedy_search = other",
        "GENMODE_HOOKS": "tracer",
    }
    assert Settings.from_environment(environ) == Settings(
        allow=("dry", "my_plug"),
        block=("xtc",),
        none=True,
        prefer={"sample": "my-plug", "strategies:greedy_search": "other"},
        hooks=("tracer",),
    )
    assert Settings.from_environment({}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("GENMODE_PLUGINS", "some"), ("GENMODE_PREFER", "sample"), ("GENMODE_PREFER", "=x")],
)
def test_an_environment_that_cannot_be_understood_is_refused(variable: str, value: str) -> None:
    with pytest.raises(ParameterError, match=variable):
        Settings.from_environment({variable: value})


@pytest.mark.parametrize(
    "wrong",
    [{"allow": 3}, {"block": [1]}, {"none": "yes"}, {"prefer": {"a": 1}}, {"prefer": 3}, {"hooks": {"a": 1}}],
)
def test_wrong_types_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


def test_one_string_is_a_list_of_names_and_settings_can_be_hashed() -> None:
    assert Settings(allow="a, b").allow == ("a", "b")  # type: ignore[arg-type]
    assert hash(Settings(prefer={"a": "b"})) == hash(Settings(prefer={"a": "c"}))


def test_prefer_with_a_kind_wins_over_the_bare_name() -> None:
    settings = Settings(prefer={"sample": "a", "criteria:sample": "b", "key": "c", "parameters:key": "d"})
    assert settings.preferred("strategies", "sample") == "a"
    assert settings.preferred("criteria", "sample") == "b"
    assert settings.preferred("parameters", "key") == "d"
    assert Settings(prefer={"key": "c"}).preferred("parameters", "key") is None


def test_names_that_match_nothing_are_reported_with_the_closest() -> None:
    settings = Settings(
        allow=("dri", "plug"),
        block=("nothing-like-it", "processors:dry", "broken"),
        prefer={"dyr": "plug", "dry": "plugg", "parameters:dry_base": "plug"},
        hooks=("dry",),
    )
    assert settings.unknown([entry()], ["broken"]) == [
        "setting `allow`: nothing is named 'dri'; did you mean 'dry'?",
        "setting `block`: nothing is named 'nothing-like-it'",
        "setting `hooks`: nothing is named 'dry'",
        "setting `prefer`: no component is named 'dyr'; did you mean 'dry'?",
        "setting `prefer`: 'plugg' does not provide 'dry'; did you mean 'plug'?",
    ]
    assert Settings(prefer={"dry": REGISTERED}).unknown([entry()]) == []


words = st.text("abcde_", min_size=1, max_size=8)


@hypothesis_settings(deadline=None)
@given(words, st.lists(words, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_closest_is_one_of_them_whatever_their_order(word: str, choices: list[str], mix: random.Random) -> None:
    mixed = list(choices)
    mix.shuffle(mixed)
    near = closest(word, choices)
    assert near == closest(word, mixed)
    assert near is None or near in choices


@hypothesis_settings(deadline=None)
@given(words, st.lists(words, max_size=8))
def test_a_word_is_closest_to_itself(word: str, others: list[str]) -> None:
    assert closest(word, [*others, word]) == word
    assert closest(word.upper(), [*others, word]) == word
