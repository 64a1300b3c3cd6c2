"""What cannot be met is said: before the model runs, where a row cannot go on, or of the result."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import genmode
from genmode_processors.grammar import Grammar, UnmetGrammarWarning
from genmode_processors.grammar.matchers import OFFERS

from .support import ANY_GRAMMAR, ENGINES, SCHEMA, generate, ids, model, needs, prompts, texts, tokenizer


class TestBeforeTheModelRuns:
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("regex", ["(", "a{3,1}", "[z-a]"])
    def test_invalid_regex(self, engine: str, regex: str) -> None:
        needs(engine)
        with pytest.raises(genmode.ParameterError, match=f"{engine} does not understand this regex"):
            generate({"regex": regex}, 1, engine)

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize(
        "schema", [{"type": "speling"}, {"$ref": "#/$defs/none"}, {"type": "string", "pattern": "("}]
    )
    def test_invalid_schema(self, engine: str, schema: Any) -> None:
        needs(engine)
        with pytest.raises(genmode.ParameterError, match=f"{engine} does not understand this json_schema"):
            generate(schema, 1, engine)

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "integer", "minimum": 5, "maximum": 3},
            {"enum": []},
            {"type": "object", "properties": {"a": False}, "required": ["a"], "additionalProperties": False},
        ],
    )
    def test_a_schema_that_nothing_meets(self, engine: str, schema: Any) -> None:
        needs(engine)
        with pytest.raises(genmode.ParameterError, match=r"does not understand this json_schema|no token .* begins"):
            generate(schema, 1, engine)

    @pytest.mark.parametrize("engine", ANY_GRAMMAR)
    @pytest.mark.parametrize("ebnf", ["root ::= (", "root ::= missing", 'start ::= "a"'])
    def test_invalid_ebnf(self, engine: str, ebnf: str) -> None:
        needs(engine)
        with pytest.raises(genmode.ParameterError, match=f"{engine} does not understand this ebnf"):
            generate({"ebnf": ebnf}, 1, engine)

    @pytest.mark.parametrize("engine", ["outlines-core", "lm-format-enforcer"])
    def test_an_engine_that_knows_no_such_grammar(self, engine: Any) -> None:
        with pytest.raises(genmode.ParameterError, match="knows no ebnf; choose one of llguidance, xgrammar"):
            generate({"ebnf": 'root ::= "a"'}, 1, engine)

    def test_an_engine_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for offer in OFFERS:
            monkeypatch.setattr(
                "genmode_processors.grammar.matchers._load", lambda one: ImportError(f"No module named {one.package!r}")
            )
            with pytest.raises(genmode.ParameterError, match=f"pip install {offer.name}"):
                generate({"regex": "a"}, 1, offer.name)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_tokenizer_without_the_first_character(self, engine: str) -> None:
        needs(engine)
        with pytest.raises(genmode.ParameterError, match=r"begins|does not understand"):
            lacking({"regex": "Z[a-z]"}, engine)

    def test_no_tokenizer(self) -> None:
        with pytest.raises(genmode.ParameterError, match="pass tokenizer="):
            genmode.generate(model(), **prompts(1), grammar={"regex": "a"}, max_new_tokens=4)

    def test_no_end_of_sequence(self) -> None:
        with pytest.raises(genmode.ParameterError, match="set eos_token_id"):
            genmode.generate(
                model(eos=False), **prompts(1), grammar={"regex": "a"}, tokenizer=tokenizer(), max_length=99
            )

    def test_an_engine_without_a_grammar(self) -> None:
        with pytest.raises(genmode.ParameterError, match="grammar_engine is given without a grammar"):
            genmode.generate(model(), **prompts(1), grammar_engine="xgrammar", tokenizer=tokenizer(), max_new_tokens=4)


def lacking(grammar: Any, engine: str, **more: Any) -> Any:
    """A call with a tokenizer that has no Z."""
    words = tokenizer(without="Z")
    inputs = dict(words(["a", "ab"], return_tensors="pt", padding=True, padding_side="left"))
    more = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "max_new_tokens": 20, **more}
    return genmode.generate(model(), **inputs, tokenizer=words, grammar=grammar, grammar_engine=engine, **more)


class TestRowsThatCannotGoOn:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_tokenizer_without_a_later_character(self, engine: str) -> None:
        needs(engine)
        with pytest.raises((genmode.DecodingError, genmode.ParameterError)) as caught:
            lacking({"regex": "[ab]cZd"}, engine)
        if isinstance(caught.value, genmode.DecodingError):
            assert "row 0 has no token left to choose at position 2" in str(caught.value)
            assert (caught.value.row, caught.value.component) == (0, "grammar")
            assert caught.value.sequences is not None
            assert caught.value.sequences.shape[1] == 3  # the prompt and "ac"
        else:  # an engine that sees it before
            assert "does not understand" in str(caught.value) or "begins" in str(caught.value)

    @pytest.mark.parametrize(
        "more",
        [
            {"bad_words_ids": [[tokenizer().convert_tokens_to_ids("b")]]},
            {"forced_bos_token_id": None, "suppress_tokens": [tokenizer().convert_tokens_to_ids("b")]},
            {"min_new_tokens": 9},
        ],
        ids=["banned", "suppressed", "too short"],
    )
    def test_other_processors_that_leave_nothing(self, more: Any) -> None:
        needs("llguidance")
        for way in ({}, {"do_sample": True}, {"prompt_lookup_num_tokens": 3}):
            with pytest.raises(genmode.DecodingError, match=r"row \d (has no token left|cannot go on)") as caught:
                generate({"regex": "a{2}b{3}"}, 2, **more, **way)
            assert caught.value.sequences is not None

    @pytest.mark.parametrize("endless", ['root ::= "a" root', 'root ::= "b" x\nx ::= "a" x'])
    @pytest.mark.parametrize("engine", ANY_GRAMMAR)
    def test_a_rule_that_never_ends(self, engine: str, endless: str) -> None:
        """One engine sees it at once; under the other the text goes on to the limit, which is said."""
        needs(engine)
        if engine == "llguidance":
            with pytest.raises(genmode.DecodingError, match="a rule that never ends"):
                generate({"ebnf": endless}, 2, engine, tokens=9)
        else:
            with pytest.warns(UnmetGrammarWarning, match="0, 1 cut in the middle"):
                generate({"ebnf": endless}, 2, engine, tokens=9)

    def test_forced_tokens(self) -> None:
        needs("llguidance")
        with pytest.raises(genmode.DecodingError, match=r"at position 3 of its output.*forced_eos"):
            generate({"regex": "[ab]{9}"}, 2, tokens=4, forced_eos_token_id=[tokenizer().eos_token_id])

    def test_a_strategy_that_sets_scores_of_its_own(self) -> None:
        class Stubborn(genmode.Strategy):
            contract_version = 1

            def decode(self, session: genmode.Session, params: Any) -> None:
                for step in session.steps():
                    step.commit(step.logits.argmax(-1))

        needs("llguidance")
        with pytest.raises(genmode.DecodingError, match="row 0 took token"):
            generate({"regex": "Q{40}"}, 2, strategy=Stubborn, tokens=5)


class TestResults:
    @pytest.mark.parametrize("more", [{}, {"do_sample": True}, {"prompt_lookup_num_tokens": 3}, {"num_beams": 3}])
    def test_cut_by_the_length_limit(self, more: Any) -> None:
        needs("llguidance")
        grammar = Grammar(grammar=SCHEMA)
        with pytest.warns(UnmetGrammarWarning, match="3 of 3 results .* 0, 1, 2 cut in the middle.* 12 tokens") as told:
            found = generate(grammar, 3, tokens=12, **more)
        assert grammar.results == ("cut",) * 3 == told[0].message.states  # type: ignore[union-attr]
        assert all(text.startswith('{"name":') for text in found)

    def test_some_are_cut(self) -> None:
        needs("llguidance")
        grammar = Grammar(grammar=["a", "b" * 30])
        with pytest.warns(UnmetGrammarWarning) as told:
            found = generate(grammar, 12, tokens=8, do_sample=True, temperature=5.0, top_k=0, seed=list(range(12)))
        states = told[0].message.states  # type: ignore[union-attr]
        assert states == tuple("complete" if text == "a" else "cut" for text in found)
        assert set(states) == {"complete", "cut"}

    def test_a_whole_text_at_the_limit_is_complete(self) -> None:
        needs("llguidance")
        grammar = Grammar(grammar={"regex": "[ab]{4}"})
        assert len(generate(grammar, 2, tokens=4)[0]) == 4
        assert grammar.results == ("complete", "complete")

    def test_rows_that_a_criterion_stops(self) -> None:
        needs("llguidance")
        grammar = Grammar(grammar={"regex": "a{3}b[a-d]{3}"})
        with pytest.warns(UnmetGrammarWarning, match="0, 1 cut"):
            assert set(generate(grammar, 2, stop_strings=["b"])) == {"aaab"}
        assert grammar.results == ("cut", "cut")

    def test_rows_of_their_own_ends(self) -> None:
        """Rows that are padded, also with the end of sequence, are complete."""
        needs("llguidance")
        for pad in (tokenizer().pad_token_id, tokenizer().eos_token_id):
            grammar = Grammar(grammar={"regex": "a|[bc]{9}"})
            sequences = ids(
                grammar, 20, do_sample=True, temperature=4.0, top_k=0, seed=list(range(20)), pad_token_id=pad
            )
            assert grammar.results == ("complete",) * 20
            assert {len(text) for text in texts(sequences, 20)} == {1, 9}

    def test_fewer_texts_than_beams(self) -> None:
        needs("llguidance")
        grammar = Grammar(grammar=["a", "bb"])
        assert set(generate(grammar, 2, num_beams=4, num_return_sequences=2)) == {"a", "bb"}
        found = generate(grammar, 2, num_beams=4, num_return_sequences=4, tokens=6)
        assert (set(found), grammar.results) == ({"a", "bb"}, ("complete",) * 8)  # some of them twice

    def test_nothing_is_said_of_a_call_that_failed(self) -> None:
        needs("llguidance")

        class Broken(genmode.LogitsProcessor):
            contract_version = 1

            def process(self, scores: Any, history: genmode.History) -> Any:
                if history.tokens.shape[1] > prompts(1)["input_ids"].shape[1] + 2:
                    raise OSError("gone")
                return scores

        grammar = Grammar(grammar=SCHEMA, grammar_jump_forward=False)
        with pytest.raises(genmode.DecodingError, match="gone"):
            genmode.generate(
                model(), **prompts(1), processors=[grammar, Broken()], tokenizer=tokenizer(), max_new_tokens=9
            )
        assert grammar.results == ()
        assert json.loads(generate(grammar, 1)[0])  # the object serves the next call


@pytest.mark.filterwarnings("ignore:tokens that grammar forces")
def test_a_watermark_beside_a_grammar() -> None:
    """Its bias picks among what the grammar leaves, whatever it wants."""
    needs("llguidance")
    mark = {"greenlist_ratio": 0.25, "bias": 9.0, "hashing_key": 15485863, "seeding_scheme": "lefthash"}
    grammar = Grammar(grammar={"regex": "[a-f]{12}"})
    import transformers

    config = transformers.WatermarkingConfig(**mark)
    found = generate(grammar, 6, do_sample=True, watermarking_config=config)
    assert grammar.results == ("complete",) * 6
    assert found != generate({"regex": "[a-f]{12}"}, 6, do_sample=True)


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 3}])
def test_tokens_without_an_alternative_are_said_beside_a_watermark(more: Any) -> None:
    needs("llguidance")
    mark = genmode.WatermarkingConfig("unigram", key=5)
    call: dict[str, Any] = {**prompts(1), "tokenizer": tokenizer(), "max_new_tokens": 9, "watermark": mark}
    plan = genmode.explain(model(), grammar={"regex": "a"}, **call)
    assert any("tokens that grammar forces carry no mark" in note for note in plan.notes)
    grammar = Grammar(grammar={"regex": "[ab]xyz"})
    with pytest.warns(UserWarning, match="tokens that grammar forces carry no mark"):
        generate(grammar, 2, tokens=9, watermark=mark, **more)
    assert grammar.forced == (0.8, 0.8)  # x, y, z and the end, of five tokens
    generate(grammar, 2, tokens=9, **more)
    assert grammar.forced == ()


def test_explain_says_that_the_host_waits() -> None:
    needs("llguidance")
    plan = genmode.explain(model(), **prompts(1), grammar=["a"], tokenizer=tokenizer(), max_new_tokens=4)
    assert [one.name for one in plan.processors] == ["grammar"]
    assert "the host" in plan.notes[0]
    assert torch.get_default_dtype() == torch.float32
