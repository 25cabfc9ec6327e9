// SPDX-License-Identifier: Apache-2.0
// What is known of a run of several processes before any of them talks to another.
#pragma once

namespace memlayers::dist {

// The rank that the launcher gave this process; 0 without one. Starts nothing.
int launched_rank();

// Whether world() was called: until then no other process waits for this one.
bool world_has_started();

}  // namespace memlayers::dist
