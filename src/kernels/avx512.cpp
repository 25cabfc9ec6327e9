// SPDX-License-Identifier: Apache-2.0
// Compiled with AVX-512 F, BW, VL and DQ.
#include <immintrin.h>

#include <cstring>

#include "kernels/kernels.h"

namespace memlayers::kernels {
namespace {

#include "avx512.inl"

}  // namespace

extern const Kernels avx512;
constinit const Kernels avx512 = make_table("avx512");

}  // namespace memlayers::kernels
