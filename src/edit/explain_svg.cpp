// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "memlayers/explain.h"

namespace memlayers {
namespace {

constexpr int kLabel = 190, kCell = 34, kRow = 22, kBars = 260, kTop = 64;  // pixels

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;  // XML knows no control characters
    }
  }
  return out;
}

std::vector<double> by_token(const ExplainedSlot& slot, std::size_t tokens) {
  std::vector<double> sum(tokens);
  for (const SlotRead& read : slot.reads) {
    for (std::size_t i = 0; i < tokens; ++i) sum[i] += read.by_token[i];
  }
  return sum;
}

std::string label(const ExplainedSlot& slot) {
  std::string text = std::to_string(slot.slot);
  for (const SlotRead& read : slot.reads) {
    text += (&read == slot.reads.data() ? "  layer " : ", ") + std::to_string(read.layer) +
            " head " + std::to_string(read.head);
  }
  return text;
}

}  // namespace

std::string explanation_svg(const Explanation& explanation) {
  const std::size_t tokens = explanation.tokens.size();
  const int bars = kLabel + static_cast<int>(tokens) * kCell + 20, width = bars + kBars + 20;
  const int height = kTop + static_cast<int>(explanation.slots.size()) * kRow + 40;
  double most_read = 0, most_change = 0;
  for (const ExplainedSlot& slot : explanation.slots) {
    most_change = std::max(most_change, std::abs(slot.change));
    for (const double weight : by_token(slot, tokens)) most_read = std::max(most_read, weight);
  }
  std::ostringstream out;
  out << std::setprecision(3) << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" << width
      << "\" height=\"" << height << "\" font-family=\"sans-serif\" font-size=\"11\">\n"
      << "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
      << "<text x=\"8\" y=\"18\" font-size=\"13\">" << escaped(explanation.answer)
      << ": log-probability " << explanation.log_probability << "</text>\n";
  for (std::size_t i = 0; i < tokens; ++i) {
    const std::string& token = explanation.tokens[i];
    out << "<text x=\"" << kLabel + static_cast<int>(i) * kCell + kCell / 2 << "\" y=\"" << kTop - 8
        << "\" text-anchor=\"middle\">" << escaped(token.empty() ? "end" : token) << "</text>\n";
  }
  out << "<text x=\"" << bars << "\" y=\"" << kTop - 24
      << "\">change of the log-probability</text>\n<text x=\"" << bars << "\" y=\"" << kTop - 8
      << "\">without the slot</text>\n";
  int y = kTop;
  for (const ExplainedSlot& slot : explanation.slots) {
    const std::string written =
        slot.patch ? "written by patch " + *slot.patch : std::string("of the base");
    out << "<text x=\"8\" y=\"" << y + 15 << "\">" << escaped(label(slot)) << "<title>"
        << escaped(written) << "</title></text>\n";
    const std::vector<double> weights = by_token(slot, tokens);
    for (std::size_t i = 0; i < tokens; ++i) {
      out << "<rect x=\"" << kLabel + static_cast<int>(i) * kCell << "\" y=\"" << y << "\" width=\""
          << kCell - 2 << "\" height=\"" << kRow - 2 << "\" fill=\"#1f5fa8\" fill-opacity=\""
          << (most_read > 0 ? weights[i] / most_read : 0) << "\" stroke=\"#ddd\"><title>"
          << weights[i] << "</title></rect>\n";
    }
    const double length = most_change > 0 ? std::abs(slot.change) / most_change * (kBars - 60) : 0;
    out << "<rect x=\"" << bars << "\" y=\"" << y + 3 << "\" width=\"" << length << "\" height=\""
        << kRow - 8 << "\" fill=\"" << (slot.change < 0 ? "#b4442c" : "#5b8c3e")
        << "\"/>\n<text x=\"" << bars + static_cast<int>(length) + 5 << "\" y=\"" << y + 15 << "\">"
        << slot.change << (slot.patch ? " *" : "") << "</text>\n";
    y += kRow;
  }
  out << "<text x=\"8\" y=\"" << y + 22 << "\" fill=\"#555\">cells: weight with which a token of "
      << "the answer reads the slot, the darkest " << most_read
      << "; * written by a patch</text>\n</svg>\n";
  return out.str();
}

}  // namespace memlayers
