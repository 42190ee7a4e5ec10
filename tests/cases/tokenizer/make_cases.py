"""Makes the tokenizer cases of this folder: tiny vocabularies trained on the text below, and what the
reference libraries (tokenizers, sentencepiece) make of the strings below.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 && python3 make_cases.py

Each case is a folder with the tokenizer's file and strings.json.
"""

import io
import json
import pathlib
import random

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

HERE = pathlib.Path(__file__).resolve().parent

TEXT = """
A small harbour lies below the hill, and every morning the boats leave it before the sun is up. The nets
are mended in the evening, when the wind has gone and the water is as smooth as glass. There's a baker in
the lane who'll sell you bread for 3 coins, or 12 loaves for 30; she's known for it, isn't she? They've
asked her, and she'd said: "We're closed on Sundays." I'm not sure that's true.
The learning rate was 0.001 at step 1024, and the loss fell from 3.14159 to 2.71828. In 2024 it was 99 %.
def forward(self, x): return x @ self.weight.T + self.bias  # the linear layer, y = x W^T + b
for (int i = 0; i < 10; ++i) { total += values[i] * weights[i]; }  // sum of products
    indented by four;	and by a tab.
Größe und Übermut tun selten gut. Voilà, le garçon a mangé des crêpes à Noël. El niño comió una piña.
Быстрая лиса прыгает. Καλημέρα κόσμε. 你好，世界。こんにちは世界。안녕하세요 세계. नमस्ते दुनिया। مرحبا بالعالم
Emoji: 🙂 👍🏽 👨‍👩‍👧 ❤️ and signs: € £ ¥ © ® ™ … – — ‘single’ “double” «guillemets» ½ ¾ ² ³
"""

STRINGS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\r\n", " \n ", "a", "A", "é", "e\u0301", "ß", "İ", "ı", "ſ",
    "The harbour lies below the hill.", "the water is as smooth as glass", " leading", "trailing ", "  both  ",
    "There's, they've, she'd, we're, I'm, who'll, isn't", "THERE'S THEY'VE SHE'D WE'RE I'M", "don’t", "'tis '90s",
    "0", "12", "123", "1234", "12345678", "3.14159", "x2y3", "½ ² ³ Ⅷ ٣ ३ 〇", "1,000,000.00 €", "2024-01-02T03:04:05Z",
    "def forward(self, x):\n    return x\n\n\n    # end\n", "a=b; c+=d; e==f && g||h", "{\"key\": [1, 2, null]}", "\\frac{a}{b} $x^2$",
    "tabs\tand\t\ttabs", "spaces          many", "new\n\n\nlines\n \n  \n", "mixed \t \n end ", "\u00a0no\u00a0break\u2003em\u3000wide",
    "Größe und Übermut", "GRÖSSE", "Voilà, le garçon", "E\u0301cole cafe\u0301", "Быстрая лиса", "Καλημέρα κόσμε ΟΔΟΣ",
    "你好，世界。", "こんにちは世界。カタカナ ｶﾀｶﾅ", "안녕하세요 \u1112\u1161\u11ab", "नमस्ते दुनिया।", "مرحبا بالعالم", "שלום", "ไทย",
    "🙂", "👍🏽", "👨‍👩‍👧‍👦", "❤️ ☃ 1️⃣", "🇩🇪🇫🇷", "ﬁ ﬀ Ⅳ ① ㎞ Å Å ℌ", "…", "—–-", "“quoted” ‘single’", "$%^&*()_+", "!!!???...,,,;;;:::",
    "a\u0000b", "zero\u200bwidth\u200djoiner\ufeff", "\u0301start", "a\u0300\u0301\u0302b", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠀀𠀁", "\u2581mark \u2581\u2581 marks", "<0x41>", "##ing ##a",
    "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nhello<|im_end|>\n", "<|IM_START|>", "<bos>x<eos>", "<s> a </s>", "<pad>", "<mask> and <mask>",
    "hello <mask> world", "hello  <mask>  world", "[CLS] a [SEP] b [MASK] c [PAD]", "[cls]", "<extra_id_0> x<extra_id_1>", "keyword keywords KEYWORD", "<tag>x</tag>",
    "abababababababababababababababababababababababababababababababababababababababababababababababababab",
    "supercalifragilisticexpialidocious" * 4, "the" * 60, "x" * 130, "\n".join(["line of text"] * 6), "The the THE tHe ThE",
]


def more_strings(count=40, seed=5):
    draw = random.Random(seed)
    words = TEXT.split() + STRINGS
    for _ in range(count):
        yield draw.choice(["", " ", "\n"]).join(draw.choice(words) + draw.choice(["", "", " ", "  ", "\n", ".", "\t"])
                                                for _ in range(draw.randint(1, 10)))


def all_strings():
    return STRINGS + list(more_strings())


def write(name, tokenizer, encode, decode, **extra):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    if isinstance(tokenizer, str):
        (folder / "tokenizer.json").write_text(tokenizer + "\n", encoding="utf-8")
    else:
        (folder / "tokenizer.model").write_bytes(tokenizer)
    strings = []
    for text in all_strings():
        ids = encode(text)
        entry = {"text": text, "ids": ids}
        decoded, without_special = decode(ids, False), decode(ids, True)
        if decoded != text:
            entry["decoded"] = decoded  # else it equals the text
        if without_special != decoded:
            entry["decoded_without_special"] = without_special  # else it equals the former
        strings.append(entry)
    lines = ["{"] + [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in extra.items()]
    lines.append(' "strings": [')
    lines.append(",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in strings))
    lines += [" ]", "}"]
    (folder / "strings.json").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(name, tokenizer, pairs=(), add_special=True):
    def encode(text):
        return tokenizer.encode(text, add_special_tokens=add_special).ids

    def decode(ids, skip):
        return tokenizer.decode(ids, skip_special_tokens=skip)

    listed = []
    for first, second in pairs:
        encoding = tokenizer.encode(first, second, add_special_tokens=add_special)
        entry = {"first": first, "second": second, "input_ids": encoding.ids, "token_type_ids": encoding.type_ids}
        for length in (6, 9, 14):
            tokenizer.enable_truncation(length, strategy="longest_first")
            cut = tokenizer.encode(first, second, add_special_tokens=add_special)
            entry[f"input_ids_{length}"] = cut.ids
            tokenizer.no_truncation()
        listed.append(entry)
    write(name, tokenizer.to_str(), encode, decode, add_special_tokens=add_special, pairs=listed)


def train(tokenizer, size, special=(), alphabet=()):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), initial_alphabet=list(alphabet), show_progress=False)
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    return tokenizer


PAIRS = [("the water", "is smooth"), ("a", ""), ("", "b"), ("The harbour lies below the hill.", "x"),
         ("one", "A baker in the lane sells bread for 3 coins."), ("boats leave it before the sun", "the nets are mended in the evening")]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = pre_tokenizers.ByteLevel.alphabet()


def gpt2():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    write_json("gpt2", train(t, 420, ["<|endoftext|>"], BYTES))


def smollm():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    # Only some bytes: the rest is dropped, as in SmolLM2.
    write_json("smollm", train(t, 300, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], BYTES[:120]))


def qwen2():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    train(t, 420, [], BYTES)
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens([AddedToken("<tag>", normalized=False), AddedToken("</tag>", normalized=False)])
    write_json("qwen2", t)


def llama3():
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    description = json.loads(train(t, 420, [], BYTES).to_str())
    # A word that no merge makes: only ignore_merges finds it.
    description["model"]["vocab"]["\u0120harbour"] = len(description["model"]["vocab"])
    t = Tokenizer.from_str(json.dumps(description))
    t.add_special_tokens(["<bos>", "<eos>"])
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", t.token_to_id("<bos>"))])])
    write_json("llama3", t, PAIRS)


def roberta():
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.decoder = decoders.ByteLevel()
    train(t, 400, ["<s>", "<pad>", "</s>", "<unk>"], BYTES)
    t.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    write_json("roberta", t, PAIRS)


def byte_fallback(tokenizer, first):
    """Gives a BPE tokenizer byte tokens from id `first` on."""
    description = json.loads(tokenizer.to_str())
    model = description["model"]
    shift = {token: i for i, token in enumerate(first)}
    for byte in range(256):
        shift[f"<0x{byte:02X}>"] = len(shift)
    for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1]):
        if token not in shift:
            shift[token] = len(shift)
    model.update(vocab=shift, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    for added in description["added_tokens"]:
        added["id"] = shift[added["content"]]
    return Tokenizer.from_str(json.dumps(description))


def gemma3():
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    t.normalizer = normalizers.Replace(" ", "\u2581")
    t.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    train(t, 300, special)
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t = byte_fallback(t, special)
    t.add_tokens([AddedToken(text, normalized=False) for text in ("\n", "\n\n", "\n\n\n", "\t", "  ", "   ", "    ", "<tag>", "</tag>")])
    t.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    t.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)])
    write_json("gemma3", t, PAIRS)


def llama2():
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    special = ["<unk>", "<s>", "</s>"]
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    train(t, 300, special)
    t.pre_tokenizer = None
    t = byte_fallback(t, special)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    write_json("llama2", t, PAIRS)


def bert():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(TEXT.splitlines(), trainers.WordPieceTrainer(vocab_size=420, special_tokens=special, show_progress=False))
    t.decoder = decoders.WordPiece()
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    write_json("bert", t, PAIRS)
    vocabulary = sorted(t.get_vocab().items(), key=lambda item: item[1])
    (HERE / "bert" / "vocab.txt").write_text("".join(token + "\n" for token, _ in vocabulary), encoding="utf-8")


def bert_cased():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    t.normalizer = normalizers.BertNormalizer(lowercase=False, handle_chinese_chars=False, clean_text=False)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(TEXT.splitlines(), trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    t.decoder = decoders.WordPiece(cleanup=False)
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    t.add_tokens([AddedToken("keyword", single_word=True, normalized=False), AddedToken("loss", rstrip=True)])
    write_json("bert_cased", t, PAIRS)


def splits():
    """Splitting and normalising steps that the other cases do not use."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([
        normalizers.Strip(), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s+"), " "), normalizers.Nmt()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split("e", "merged_with_previous"), pre_tokenizers.Split(Regex("[xyz]+"), "merged_with_next"),
        pre_tokenizers.Split("q", "removed")])
    tokenizer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False, limit_alphabet=60)
    t.train_from_iterator(TEXT.splitlines(), tokenizer)
    t.decoder = decoders.BPEDecoder()
    write_json("splits", t)


def falcon():
    """Steps after ByteLevel see its printable form."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    t.decoder = decoders.ByteLevel()
    write_json("falcon", train(t, 400, ["<|endoftext|>"], BYTES))


def sentence_piece(size, kind, **options):
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT.strip().splitlines()), model_writer=buffer, vocab_size=size,
                                             model_type=kind, minloglevel=2, hard_vocab_limit=False, **options)
    return buffer.getvalue()


def rules():
    """A small character map instead of the 240 KB of nmt_nfkc."""
    path = HERE / "rules.tsv"
    pairs = [("\u00c5", "A"), ("\uff41", "a"), ("\u3000", " "), ("\u00a0", " "), ("\t", " "), ("\n", " "), ("\r", ""), ("\u200b", ""), ("fi", "\ufb01"),
             ("e\u0301", "\u00e9"), ("\ufb01", "fi"), ("\u2460", "1"), ("\u338f", "kg"), ("\u00bd", "1/2"), ("\u2026", "..."), ("ab", "ba"), ("abab", "c")]
    pairs.remove(("fi", "\ufb01"))
    with open(path, "w", encoding="utf-8") as out:
        for source, target in pairs:
            out.write(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n")
    return path


def write_model(name, model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def decode(ids, _):  # the library writes " ⁇ " for unknown tokens: not compared
        return None if processor.unk_id() in ids else processor.decode(ids)

    write(name, model, lambda text: processor.encode(text.replace("\u0000", "")), decode, add_special_tokens=False, parse_special=False,
          strips_zeros=True)


def sentence_piece_models():
    path = rules()
    unigram = sentence_piece(260, "unigram", normalization_rule_tsv=str(path), user_defined_symbols=["<tag>", "</tag>", "keyword"])
    write_model("sp_unigram", unigram)
    write_model("sp_unigram_bytes", sentence_piece(460, "unigram", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False))
    write_model("sp_bpe", sentence_piece(520, "bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                                         user_defined_symbols=["<tag>", "</tag>", "\n\n", "  "]))
    write_model("sp_bpe_unk", sentence_piece(200, "bpe", normalization_rule_tsv=str(path), add_dummy_prefix=False))
    path.unlink()
    return unigram


def t5(model):
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    t = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk_id=0))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    t.add_special_tokens(["</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"])
    end = t.token_to_id("</s>")
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", end)])
    write_json("t5", t, PAIRS)
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.normalizer = normalizers.Sequence([])
    t.decoder = decoders.Metaspace(prepend_scheme="first")
    write_json("unigram_first", t)


if __name__ == "__main__":
    for make in (gpt2, smollm, qwen2, llama3, roberta, gemma3, llama2, bert, bert_cased, splits, falcon):
        make()
    t5(sentence_piece_models())
