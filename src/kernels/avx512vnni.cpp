// SPDX-License-Identifier: Apache-2.0
// Compiled with AVX-512 F, BW, VL, DQ and VNNI.
#include <immintrin.h>

#include <cstring>

#include "kernels/kernels.h"

namespace memlayers::kernels {
namespace {

#include "avx512.inl"

}  // namespace

extern const Kernels avx512vnni;
constinit const Kernels avx512vnni = make_table("avx512vnni");

}  // namespace memlayers::kernels
