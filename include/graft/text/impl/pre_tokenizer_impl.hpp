#pragma once

#include "graft/text/pre_tokenizer.hpp"

namespace graft::inline v0_1::text {

namespace detail {

/// Splits a piece at matches; `matches(visit)` calls `visit(begin, end)` from left to right. With
/// `invert`, what lies between the matches plays their part.
template <class Matches, class Emit>
void split_piece(const Piece& piece, SplitBehavior behavior, bool invert, Matches&& matches,
                 Emit&& emit) {
  if (behavior == SplitBehavior::isolated) {  // the frequent case, without a list of parts
    std::size_t previous = 0;
    matches([&](std::size_t begin, std::size_t end) {
      if (begin > previous) emit(piece.slice(previous, begin));
      if (end > begin) emit(piece.slice(begin, end));
      previous = end;
    });
    if (previous < piece.text.size()) emit(piece.slice(previous, piece.text.size()));
    return;
  }
  struct Part {
    std::size_t begin, end;
    bool match;
  };
  std::vector<Part> parts;
  std::size_t previous = 0;
  matches([&](std::size_t begin, std::size_t end) {
    if (begin > previous) parts.push_back({previous, begin, invert});
    parts.push_back({begin, end, !invert});
    previous = end;
  });
  if (previous < piece.text.size()) parts.push_back({previous, piece.text.size(), invert});

  switch (behavior) {
    case SplitBehavior::isolated:
      break;  // above
    case SplitBehavior::removed:
      for (const Part& part : parts) {
        if (!part.match) emit(piece.slice(part.begin, part.end));
      }
      break;
    case SplitBehavior::contiguous:
      for (std::size_t i = 0; i < parts.size();) {
        std::size_t last = i;
        while (last + 1 < parts.size() && parts[last + 1].match == parts[i].match) ++last;
        emit(piece.slice(parts[i].begin, parts[last].end));
        i = last + 1;
      }
      break;
    case SplitBehavior::merged_with_previous:
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const bool joins = !parts[i].match && i + 1 < parts.size() && parts[i + 1].match;
        emit(piece.slice(parts[i].begin, parts[joins ? i + 1 : i].end));
        if (joins) ++i;
      }
      break;
    case SplitBehavior::merged_with_next:
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const bool joins = parts[i].match && i + 1 < parts.size() && !parts[i + 1].match;
        emit(piece.slice(parts[i].begin, parts[joins ? i + 1 : i].end));
        if (joins) ++i;
      }
      break;
  }
}

/// Splits at each code point that `is_match` accepts.
template <class IsMatch, class Emit>
void split_at_code_points(const Piece& piece, SplitBehavior behavior, IsMatch&& is_match,
                          Emit&& emit) {
  split_piece(
      piece, behavior, false,
      [&](auto&& visit) {
        for_each_code_point(piece.text, [&](char32_t c, std::size_t offset, std::size_t length) {
          if (is_match(c)) visit(offset, offset + length);
        });
      },
      emit);
}

}  // namespace detail

GRAFT_IO const Regex& pre_tokenizers::ByteLevel::regex() {
  static const Regex pattern(
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
  return pattern;
}

GRAFT_IO void pre_tokenizers::ByteLevel::operator()(Pieces& pieces) const {
  if (add_prefix_space) {
    pieces.split([&](const Piece& piece, auto&& emit) {
      if (piece.text.starts_with(' ')) return emit(piece);
      Pieces::Rewriter rewriter = pieces.rewrite();
      rewriter.append(" ", piece.place(0));
      for (std::size_t i = 0; i < piece.text.size(); ++i)
        rewriter.append(piece.text.substr(i, 1), piece.place(i));
      emit(rewriter.finish(piece));
    });
  }
  if (!use_regex) return;
  pieces.split([&](const Piece& piece, auto&& emit) {
    detail::split_piece(
        piece, SplitBehavior::isolated, false,
        [&](auto&& visit) { regex().for_each_match(piece.text, visit); }, emit);
  });
}

GRAFT_IO void pre_tokenizers::SpellBytes::operator()(Pieces& pieces) const {
  pieces.split([&](const Piece& piece, auto&& emit) {
    Pieces::Rewriter rewriter = pieces.rewrite();
    for (std::size_t i = 0; i < piece.text.size(); ++i) {
      rewriter.append(ByteAlphabet::get().text(static_cast<unsigned char>(piece.text[i])),
                      piece.place(i));
    }
    emit(rewriter.finish(piece));
  });
}

GRAFT_IO void pre_tokenizers::Split::operator()(Pieces& pieces) const {
  pieces.split([&](const Piece& piece, auto&& emit) {
    detail::split_piece(
        piece, behavior, invert, [&](auto&& visit) { for_each_match(pattern, piece.text, visit); },
        emit);
  });
}

GRAFT_IO void pre_tokenizers::Digits::operator()(Pieces& pieces) const {
  const auto behavior = individual_digits ? SplitBehavior::isolated : SplitBehavior::contiguous;
  pieces.split([&](const Piece& piece, auto&& emit) {
    detail::split_at_code_points(piece, behavior, is_number, emit);
  });
}

GRAFT_IO void pre_tokenizers::Punctuation::operator()(Pieces& pieces) const {
  pieces.split([&](const Piece& piece, auto&& emit) {
    detail::split_at_code_points(piece, behavior, is_punctuation, emit);
  });
}

GRAFT_IO void pre_tokenizers::Bert::operator()(Pieces& pieces) const {
  pieces.split([&](const Piece& piece, auto&& emit) {
    detail::split_at_code_points(piece, SplitBehavior::removed, is_white_space, emit);
  });
  Punctuation{}(pieces);
}

GRAFT_IO void pre_tokenizers::WhitespaceSplit::operator()(Pieces& pieces) const {
  pieces.split([&](const Piece& piece, auto&& emit) {
    detail::split_at_code_points(piece, SplitBehavior::removed, is_white_space, emit);
  });
}

GRAFT_IO void pre_tokenizers::Whitespace::operator()(Pieces& pieces) const {
  const auto kind = [](char32_t c) { return is_white_space(c) ? 0 : is_word_character(c) ? 1 : 2; };
  pieces.split([&](const Piece& piece, auto&& emit) {
    std::size_t begin = 0;
    int current = 0;
    for_each_code_point(piece.text, [&](char32_t c, std::size_t offset, std::size_t) {
      const int next = kind(c);
      if (next == current) return;
      if (current != 0) emit(piece.slice(begin, offset));
      begin = offset;
      current = next;
    });
    if (current != 0) emit(piece.slice(begin, piece.text.size()));
  });
}

GRAFT_IO void pre_tokenizers::CharDelimiterSplit::operator()(Pieces& pieces) const {
  pieces.split([&](const Piece& piece, auto&& emit) {
    detail::split_at_code_points(
        piece, SplitBehavior::removed, [&](char32_t c) { return c == delimiter; }, emit);
  });
}

GRAFT_IO void pre_tokenizers::Metaspace::operator()(Pieces& pieces) const {
  pieces.split([&](const Piece& piece, auto&& emit) {
    const bool wanted = prepend_scheme == PrependScheme::always ||
                        (prepend_scheme == PrependScheme::first && piece.at_start);
    const bool prepend =
        wanted && !piece.text.starts_with(' ') && !piece.text.starts_with(replacement);
    Pieces::Rewriter rewriter = pieces.rewrite();
    if (prepend) rewriter.append(replacement, piece.place(0));
    for (std::size_t i = 0; i < piece.text.size(); ++i) {
      const bool blank = piece.text[i] == ' ';
      rewriter.append(blank ? std::string_view(replacement) : piece.text.substr(i, 1),
                      piece.place(i));
    }
    const Piece rewritten = rewriter.finish(piece);
    if (!split) return emit(rewritten);
    detail::split_piece(
        rewritten, SplitBehavior::merged_with_next, false,
        [&](auto&& visit) { for_each_match(Pattern(replacement), rewritten.text, visit); }, emit);
  });
}

GRAFT_IO void pre_tokenizers::UnicodeScripts::operator()(Pieces& pieces) const {
  pieces.split([&](const Piece& piece, auto&& emit) {
    int current = -1;
    std::size_t begin = piece.text.size(), next = 0;
    for (std::size_t i = 0; i < piece.text.size(); i = next) {
      const auto character = decode_utf8(piece.text, i);
      next = i + utf8_length(piece.text[i]);
      const int script = script_of(character.value);
      if (script < 0 || script == current) continue;
      if (current >= 0) emit(piece.slice(begin, i));
      begin = i;
      current = script;
    }
    emit(piece.slice(begin, piece.text.size()));
  });
}

GRAFT_IO void pre_tokenizers::FixedLength::operator()(Pieces& pieces) const {
  pieces.split([&](const Piece& piece, auto&& emit) {
    const std::string_view text = piece.text;
    std::size_t begin = 0, count = 0;
    for (std::size_t i = 0; i < text.size(); i += utf8_length(text[i])) {
      if (count++ == length) {
        emit(piece.slice(begin, i));
        begin = i;
        count = 1;
      }
    }
    if (begin < text.size()) emit(piece.slice(begin, text.size()));
  });
}

GRAFT_IO void pre_tokenizers::MarkBoundaries::operator()(Pieces& pieces) const {
  if (!usable_) return;
  pieces.split([&](const Piece& piece, auto&& emit) {
    std::size_t begin = 0;
    for (std::size_t i = next(piece.text, 0); i != piece.text.npos; i = next(piece.text, i)) {
      bool crossed = false;
      for (const auto& [before, after] : across_) {
        crossed = crossed || (piece.text.substr(0, i).ends_with(before) &&
                              piece.text.substr(i).starts_with(after));
      }
      if (crossed) continue;
      emit(piece.slice(begin, i));
      begin = i;
    }
    emit(piece.slice(begin, piece.text.size()));
  });
}

GRAFT_IO void PreTokenizer::operator()(Pieces& pieces) const {
  for (const PreTokenizerStep& step : steps)
    std::visit([&](const auto& split) { split(pieces); }, step);
}

}  // namespace graft::inline v0_1::text
