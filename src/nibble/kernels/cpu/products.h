// A product of codes on torch's threads.
#pragma once
#include "paths.h"

namespace nibble {

// Every row of x against every output.
void run(const Product& p);

}  // namespace nibble
