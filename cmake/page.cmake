# cmake -DSOURCE=src/api/page -DOUT=FOLDER -P cmake/page.cmake: writes FOLDER/page.html (style and scripts inside),
# FOLDER/page.policy (its Content-Security-Policy) and FOLDER/page.cpp (both as bytes; src/api/page.h).
cmake_minimum_required(VERSION 3.25)

# "sha256-..." of a text: base64 of its hash, of which three digits of hex are two of base64.
function(hash_source text result)
  string(SHA256 hex "${text}")
  set(letters "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  set(base64 "")
  string(APPEND hex "00")
  foreach(at RANGE 0 63 3)
    string(SUBSTRING "${hex}" ${at} 3 three)
    math(EXPR first "0x${three} / 64")
    math(EXPR second "0x${three} % 64")
    string(SUBSTRING "${letters}" ${first} 1 first)
    string(SUBSTRING "${letters}" ${second} 1 second)
    string(APPEND base64 "${first}${second}")
  endforeach()
  string(SUBSTRING "${base64}" 0 43 base64)
  set(${result} "'sha256-${base64}='" PARENT_SCOPE)
endfunction()

# A file's bytes as a C++ array.
function(bytes_of file name result)
  file(READ "${file}" hex HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
  set(${result} "const unsigned char ${name}[] = {\n${bytes}};\n" PARENT_SCOPE)
endfunction()

file(READ "${SOURCE}/page.html" page)
file(READ "${SOURCE}/page.css" style)
set(script "")
foreach(part core answer chat memory)
  file(READ "${SOURCE}/${part}.js" text)
  string(APPEND script "${text}")
endforeach()
hash_source("${style}" style_hash)
hash_source("${script}" script_hash)
string(REPLACE "<style></style>" "<style>${style}</style>" page "${page}")
string(REPLACE "<script></script>" "<script>${script}</script>" page "${page}")
set(policy "default-src 'none'; script-src ${script_hash}; style-src ${style_hash}; connect-src 'self'; ")
string(APPEND policy "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
file(WRITE "${OUT}/page.html" "${page}")
file(WRITE "${OUT}/page.policy" "${policy}")
bytes_of("${OUT}/page.html" kPage page_bytes)
bytes_of("${OUT}/page.policy" kPolicy policy_bytes)
file(WRITE "${OUT}/page.cpp" "// Made by cmake/page.cmake.
#include \"api/page.h\"

namespace memlayers::api {
namespace {
${page_bytes}${policy_bytes}
template <std::size_t N>
std::string_view text_of(const unsigned char (&bytes)[N]) {
  return {reinterpret_cast<const char*>(bytes), N};
}
}  // namespace

std::string_view page_html() { return text_of(kPage); }
std::string_view page_policy() { return text_of(kPolicy); }

}  // namespace memlayers::api
")
