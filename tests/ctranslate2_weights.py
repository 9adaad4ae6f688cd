"""OpenAI's Whisper checkpoints as folders that faster-whisper reads, without a download."""

import itertools
import os
import tempfile
from pathlib import Path

import tokenizers
import torch
import whisper
from ctranslate2.converters.utils import fuse_linear
from ctranslate2.specs import WhisperSpec
from ctranslate2.specs.common_spec import LinearSpec
from tokenizers import decoders, models, pre_tokenizers
from whisper.tokenizer import get_tokenizer

# Another layout of the folder takes another number: what is cached by the old one is left alone.
LAYOUT = 1


def ctranslate2_folder(checkpoint: Path) -> Path:
    """Convert a checkpoint named after its model, such as `base.pt`, or find it converted."""
    state = checkpoint.stat()
    cache = Path(tempfile.gettempdir()) / f"audiotorch-ctranslate2-{os.getuid()}"
    folder = cache / f"{checkpoint.stem}-{state.st_size}-{state.st_mtime_ns}-{LAYOUT}"
    if folder.is_dir():
        return folder
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as partial:
        convert(checkpoint, Path(partial) / "model")
        try:
            os.replace(Path(partial) / "model", folder)
        except OSError:
            assert folder.is_dir()  # another process was faster
    return folder


def convert(checkpoint: Path, folder: Path) -> None:
    model = whisper.load_model(str(checkpoint), device="cpu").float()
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[checkpoint.stem])
    words = get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    encoding = words.encoding
    ranks = {rank: token for token, rank in encoding._mergeable_ranks.items()}
    special = {number: token for token, number in encoding._special_tokens.items()}
    vocabulary = [as_text(ranks[i]) if i in ranks else special[i] for i in range(encoding.n_vocab)]
    spec = build_spec(model)
    spec.register_vocabulary(vocabulary)
    silenced = {*words.non_speech_tokens, words.transcribe, words.translate, words.sot}
    silenced |= {words.sot_prev, words.sot_lm, words.no_speech}
    spec.config.suppress_ids = sorted(silenced)
    spec.config.suppress_ids_begin = [*words.encode(" "), words.eot]
    spec.config.alignment_heads = model.alignment_heads.indices().T.tolist()
    spec.config.lang_ids = list(words.all_language_tokens)
    spec.validate()
    spec.optimize(quantization="float16")
    folder.mkdir()
    spec.save(str(folder))
    build_tokenizer(encoding, special).save(str(folder / "tokenizer.json"))


# --- weights --------------------------------------------------------------------------------------


def build_spec(model: whisper.model.Whisper) -> WhisperSpec:
    dims = model.dims
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    for ours, theirs in (
        (spec.encoder.conv1, model.encoder.conv1),
        (spec.encoder.conv2, model.encoder.conv2),
    ):
        linear(ours, theirs)
    spec.encoder.position_encodings.encodings = model.encoder.positional_embedding
    spec.decoder.position_encodings.encodings = model.decoder.positional_embedding.detach()
    spec.decoder.embeddings.weight = model.decoder.token_embedding.weight.detach()
    spec.decoder.projection.weight = spec.decoder.embeddings.weight
    norm(spec.encoder.layer_norm, model.encoder.ln_post)
    norm(spec.decoder.layer_norm, model.decoder.ln)
    for ours, theirs in zip(spec.encoder.layer, model.encoder.blocks, strict=True):
        block(ours, theirs)
    for ours, theirs in zip(spec.decoder.layer, model.decoder.blocks, strict=True):
        block(ours, theirs)
        attention = theirs.cross_attn
        fused(ours.attention.linear[0], attention.query)
        fused(ours.attention.linear[1], attention.key, attention.value)
        linear(ours.attention.linear[2], attention.out)
        norm(ours.attention.layer_norm, theirs.cross_attn_ln)
    return spec


def block(ours, theirs) -> None:
    attention = theirs.attn
    fused(ours.self_attention.linear[0], attention.query, attention.key, attention.value)
    linear(ours.self_attention.linear[1], attention.out)
    norm(ours.self_attention.layer_norm, theirs.attn_ln)
    linear(ours.ffn.linear_0, theirs.mlp[0])
    linear(ours.ffn.linear_1, theirs.mlp[2])
    norm(ours.ffn.layer_norm, theirs.mlp_ln)


def fused(ours, *layers: torch.nn.Linear) -> None:
    parts = [LinearSpec() for _ in layers]
    for part, layer in zip(parts, layers, strict=True):
        linear(part, layer)
    fuse_linear(ours, parts)


def linear(ours, theirs) -> None:
    ours.weight = theirs.weight.detach()
    if theirs.bias is not None:
        ours.bias = theirs.bias.detach()


def norm(ours, theirs) -> None:
    ours.gamma, ours.beta = theirs.weight.detach(), theirs.bias.detach()


# --- words ----------------------------------------------------------------------------------------


def as_text(token: bytes) -> str:
    """A token as GPT-2's byte-level vocabularies write it: `Ġ` for a blank."""
    return "".join(LETTERS[byte] for byte in token)


def byte_letters() -> dict[int, str]:
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in shown]
    return {b: chr(b) for b in shown} | {b: chr(0x100 + i) for i, b in enumerate(others)}


LETTERS = byte_letters()


def build_tokenizer(encoding, special: dict[int, str]) -> tokenizers.Tokenizer:
    ranks = encoding._mergeable_ranks
    vocabulary = {as_text(token): rank for token, rank in ranks.items()}
    merges = [
        tuple(map(as_text, parts_of(token, rank, ranks)))
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1
    ]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    # Its own expression is GPT-2's, which is Whisper's too.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([special[number] for number in sorted(special)])
    assert all(tokenizer.token_to_id(token) == number for number, token in special.items())
    return tokenizer


def parts_of(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that are joined last on the way to this one: all merges of lower ranks."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while True:
        joined = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
        least = min(joined)
        if least >= rank:
            break
        place = joined.index(least)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    assert len(parts) == 2
    return parts
