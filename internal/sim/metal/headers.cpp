#include "headers.h"

// The assembler finds them by its -I option.
#define EMBED(NAME)                                                        \
  extern "C" const char NAME##_begin[], NAME##_end[];                      \
  asm(".section .rodata\n" #NAME "_begin: .incbin \"include/" #NAME ".h\"\n" #NAME \
      "_end: .byte 0\n.previous")
EMBED(atomic);
EMBED(entry);
EMBED(math);
EMBED(matrix);
EMBED(metal_stdlib);
EMBED(simd);
EMBED(thread);
EMBED(types);

namespace metalsim {

const std::vector<Header>& headers() {
#define HEADER(NAME) {#NAME ".h", std::string_view(NAME##_begin, static_cast<size_t>(NAME##_end - NAME##_begin))}
  static const auto* all = new std::vector<Header>{HEADER(atomic), HEADER(entry), HEADER(math),   HEADER(matrix),
                                                   HEADER(metal_stdlib), HEADER(simd), HEADER(thread), HEADER(types)};
  return *all;
}

}  // namespace metalsim
