// SPDX-License-Identifier: Apache-2.0
#include "api/errors.h"
#include "api/receipt.h"
#include "api/respond.h"
#include "api/run.h"
#include "api/status.h"
#include "memlayers/patch.h"

namespace memlayers::api {
namespace {

class WholeRun final : public Run {
 public:
  using Run::Run;

 protected:
  // Log-probabilities of a long prompt are megabytes of text, which the engine's thread does not
  // write. Nothing changes any more.
  void over() override {
    shared_->asks.post([self = shared_from_this(), this] { answer(); });
  }

 private:
  void answer() {
    const std::lock_guard lock(mutex_);
    log();
    if (const auto& why = failure()) return respond(*exchange_, answer_of(*why));
    const auto form = shape();
    Json body = head(form->id_prefix() + new_patch_id(), form->object());
    body["choices"] = Json::array();
    for (Choice& choice : choices()) body["choices"].push_back(form->whole(choice));
    body["usage"] = usage();
    if (asked_.gives_receipt) {
      body["receipt"] = receipt_of(shared_->engine, asked_, pool_version(), choices());
    }
    respond(*exchange_, kOk, body, headers());
  }
};

}  // namespace

std::shared_ptr<Run> whole_run(std::shared_ptr<Shared> shared,
                               std::shared_ptr<http::Exchange> exchange, Asked asked) {
  return std::make_shared<WholeRun>(std::move(shared), std::move(exchange), std::move(asked));
}

}  // namespace memlayers::api
