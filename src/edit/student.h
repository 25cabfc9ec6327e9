// SPDX-License-Identifier: Apache-2.0
// What learning may change of a model, and how.
#pragma once

#include <memory>
#include <vector>

#include "memlayers/edit.h"

namespace memlayers::edit {

// Parameters that are trained while all others are as they are. The model's weights are the
// trained ones from its making on; gradients are wanted for trained() alone.
class Student {
 public:
  Student() = default;
  virtual ~Student() = default;
  Student(const Student&) = delete;
  Student& operator=(const Student&) = delete;

  virtual std::vector<at::Tensor> trained() const = 0;
  // The model's weights as they were before learning, or as they are now.
  virtual void show(bool before) = 0;
  // Whether nothing changes below the model's first memory layer.
  virtual bool keeps_lower_layers() const = 0;
  // The tensors that hold all that is learned; after they were written, show(false).
  virtual std::vector<at::Tensor> learned() const = 0;
  // Applies and clears the gradients, at `rate` times the learning rate.
  virtual void step(double rate) = 0;
  // How many numbers are trained.
  virtual std::int64_t parameters() const;
  // Bytes of what must be stored to put on the model what was learned; and of what must be kept of
  // the model as it was to take it back, beside leaving out what was stored.
  virtual std::int64_t stored_bytes() const;
  virtual std::int64_t kept_bytes() const { return 0; }
};

std::int64_t bytes_of(const std::vector<at::Tensor>& tensors);

// Gradients for these parameters alone while it lives; then all is as before.
class OnlyTrained {
 public:
  OnlyTrained(Llama& model, const std::vector<at::Tensor>& trained);
  ~OnlyTrained();
  OnlyTrained(const OnlyTrained&) = delete;
  OnlyTrained& operator=(const OnlyTrained&) = delete;

 private:
  std::vector<std::pair<at::Tensor, bool>> before_;
};

}  // namespace memlayers::edit
