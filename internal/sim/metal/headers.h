// The files in include/, as they were when the library was built.
#pragma once
#include <string_view>
#include <vector>

namespace metalsim {

struct Header {
  const char* name;
  std::string_view text;
};
const std::vector<Header>& headers();

}  // namespace metalsim
