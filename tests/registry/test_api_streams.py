"""stream and streamers: what comes, when it comes, and what ends it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

import genmode
from genmode.testing.harness.models import fresh, greedy, prompt, tiny, tokenizer

from .api_support import FLAGS, LENGTH, ONE, Recording, broken, waiting, words


@pytest.fixture
def stray_threads() -> Iterator[None]:
    """No thread of `stream` outlives a test."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "genmode-stream"]


@pytest.mark.usefixtures("stray_threads")
class TestStream:
    @pytest.mark.oldest
    @pytest.mark.parametrize("rows", [1, 3])
    def test_tokens(self, rows: int) -> None:
        pieces = list(genmode.stream(tiny("llama"), **prompt("llama", rows), **FLAGS))
        assert torch.equal(torch.stack(pieces, 1), greedy("llama", rows, LENGTH))

    def test_tokens_of_an_encoder_decoder_and_of_a_sampler(self) -> None:
        pieces = list(genmode.stream(tiny("bart"), **prompt("bart", 2), **FLAGS))
        assert torch.equal(torch.stack(pieces, 1), greedy("bart", 2, LENGTH))
        sampled = {"do_sample": True, "seed": 4, "max_new_tokens": LENGTH}
        pieces = list(genmode.stream(tiny("llama"), **ONE, **sampled))
        assert torch.equal(torch.stack(pieces, 1), genmode.generate(tiny("llama"), **ONE, **sampled)[:, 9:])

    @pytest.mark.parametrize(
        "flags", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}, {"eos_token_id": [51]}], ids=str
    )
    def test_text(self, flags: dict[str, Any]) -> None:
        pieces = list(genmode.stream(tiny("llama"), **ONE, **FLAGS, tokenizer=tokenizer(), **flags))
        result = genmode.generate(tiny("llama"), **ONE, **FLAGS, **flags)
        assert "".join(pieces) == words(result[0, 9:])
        assert len(pieces) > 1

    def test_tokens_come_while_they_are_decoded_and_leaving_cancels(self) -> None:
        cancel = threading.Event()
        model, seen = waiting(4, cancel)
        pieces = genmode.stream(model, **ONE, do_sample=False, max_new_tokens=200, cancel=cancel)
        first = [next(pieces), next(pieces)]
        assert not cancel.is_set()
        pieces.close()
        assert cancel.is_set()
        assert len(seen) <= 4
        assert torch.equal(torch.stack(first, 1), greedy("llama", 1, 2))

    def test_an_error_is_raised_where_it_is_iterated(self) -> None:
        with pytest.raises(genmode.ParameterError, match="did you mean"):
            next(genmode.stream(tiny("llama"), **ONE, temprature=0.5))
        with pytest.raises(genmode.DecodingError, match="no good"):
            list(genmode.stream(tiny("llama"), **ONE, **FLAGS, processors=[broken]))

    def test_cancelling_from_outside(self) -> None:
        cancel = threading.Event()
        model, _ = waiting(6, cancel)

        def read() -> None:
            for count, _ in enumerate(genmode.stream(model, **ONE, max_new_tokens=200, cancel=cancel)):
                if count == 2:
                    cancel.set()

        with pytest.raises(genmode.CancelledError) as caught:
            read()
        assert 9 + 3 <= caught.value.sequences.shape[1] <= 9 + 5


class TestStreamers:
    @pytest.mark.parametrize("rows", [1, 3])
    @pytest.mark.parametrize("flags", [{}, {"do_sample": True, "top_k": 4}, {"eos_token_id": [51, 35, 65]}], ids=str)
    def test_what_transformers_puts(self, rows: int, flags: dict[str, Any]) -> None:
        pieces = []
        for generate in (transformers.LlamaForCausalLM.generate, genmode.generate):
            streamer = Recording()
            torch.manual_seed(1)
            generate(tiny("llama"), **prompt("llama", rows), **{**FLAGS, **flags}, streamer=streamer)
            pieces.append(streamer.pieces)
        assert pieces[0] == pieces[1]

    def test_an_encoder_decoder(self) -> None:
        pieces = []
        for generate in (transformers.BartForConditionalGeneration.generate, genmode.generate):
            streamer = Recording()
            generate(tiny("bart"), **prompt("bart", 1), **FLAGS, streamer=streamer)
            pieces.append(streamer.pieces)
        assert pieces[0] == pieces[1]

    @pytest.mark.parametrize(
        "flags", [{}, {"do_sample": True, "seed": 3}, {"eos_token_id": list(range(5, 95, 5))}], ids=str
    )
    @pytest.mark.parametrize("rows", [1, 2])
    def test_beams_put_what_can_no_longer_change(self, rows: int, flags: dict[str, Any]) -> None:
        """transformers refuses a streamer with beams."""
        inputs, streamer = prompt("llama", rows), Recording()
        flags = {**FLAGS, **flags, "num_beams": 3, "max_new_tokens": 20}
        result = genmode.generate(tiny("llama"), **inputs, **flags, streamer=streamer)
        assert streamer.pieces[0] == inputs["input_ids"].tolist()
        assert streamer.pieces[-1] == "end"
        assert torch.tensor(streamer.pieces[1:-1]).T.tolist() == result[:, 9:].tolist()

    def test_beams_stream_before_they_are_done(self) -> None:
        model, streamer = fresh("llama"), Recording()
        at: list[int] = []
        model.register_forward_pre_hook(lambda *_: at.append(len(streamer.pieces)))
        genmode.generate(model, **ONE, num_beams=2, max_new_tokens=40, streamer=streamer)
        assert max(at) > 2

    def test_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        streamer = transformers.TextStreamer(tokenizer(), skip_prompt=True)
        result = genmode.generate(tiny("llama"), **ONE, **FLAGS, streamer=streamer)
        assert capsys.readouterr().out.strip() == tokenizer().decode(result[0, 9:])

    @pytest.mark.parametrize("flags", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 2}], ids=str)
    def test_an_iterator_in_another_thread(self, flags: dict[str, Any]) -> None:
        streamer = transformers.TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=60)
        call = {**ONE, **FLAGS, **flags, "streamer": streamer}
        thread = threading.Thread(target=genmode.generate, args=(tiny("llama"),), kwargs=call)
        thread.start()
        text = "".join(streamer)
        thread.join()
        assert text == tokenizer().decode(genmode.generate(tiny("llama"), **ONE, **FLAGS, **flags)[0, 9:])

    def test_an_asynchronous_iterator(self) -> None:
        async def read() -> str:
            streamer = transformers.AsyncTextIteratorStreamer(tokenizer(), skip_prompt=True)
            call = {**ONE, **FLAGS, "streamer": streamer}
            work = asyncio.get_running_loop().run_in_executor(None, lambda: genmode.generate(tiny("llama"), **call))
            pieces = [piece async for piece in streamer]
            await work
            return "".join(pieces)

        assert asyncio.run(read()) == tokenizer().decode(greedy("llama", 1, LENGTH)[0])

    def test_a_streamer_takes_one_result_of_an_input(self) -> None:
        with pytest.raises(genmode.ParameterError, match="num_return_sequences"):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, num_beams=3, num_return_sequences=2, streamer=Recording())
