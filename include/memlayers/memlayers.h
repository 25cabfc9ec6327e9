// SPDX-License-Identifier: Apache-2.0
// All of memlayers.
#pragma once

#include "memlayers/checkpoint.h"
#include "memlayers/config.h"
#include "memlayers/edit.h"
#include "memlayers/error.h"
#include "memlayers/evaluate.h"
#include "memlayers/explain.h"
#include "memlayers/generator.h"
#include "memlayers/grow.h"
#include "memlayers/llama.h"
#include "memlayers/memory_layer.h"
#include "memlayers/ops.h"
#include "memlayers/optimizer.h"
#include "memlayers/parallel.h"
#include "memlayers/pool.h"
#include "memlayers/slots.h"
#include "memlayers/store.h"
#include "memlayers/tokenizer.h"
#include "memlayers/trainer.h"
