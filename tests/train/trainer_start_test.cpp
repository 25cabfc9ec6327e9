// SPDX-License-Identifier: Apache-2.0
// What a training begins with: checkpoints, weights of other folders.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memlayers/checkpoint.h"
#include "train/trainer_testing.h"

namespace memlayers {
namespace {

using testing::error_of_training;
using testing::expect_same_bits;
using ::testing::HasSubstr;
using testing::TrainerTest;
using testing::weights;

TEST_F(TrainerTest, NamesTheFieldInWhichAResumedModelDiffers) {
  TrainConfig c = config();
  c.train.steps = 2;
  Trainer(c).run();
  c.train.steps = 4;
  TrainConfig other = c;
  other.model.ff_dim = 64;
  EXPECT_THAT(error_of_training(other), HasSubstr("model.ff_dim: 64"));
  other = c;
  other.model.memory->n_keys = 12;
  EXPECT_THAT(error_of_training(other), HasSubstr("memory.n_keys: 12"));
  other = c;
  other.train.lr = 1e-4;  // not a matter of the model
  EXPECT_EQ(error_of_training(other), "no error");
}

TEST_F(TrainerTest, RefusesAnotherTokenizerThanTheCheckpoints) {
  TrainConfig c = config();
  c.train.steps = 2;
  Trainer(c).run();
  TrainConfig other = config("other");
  other.model.vocab_size = 290;
  other.train.steps = 1;
  Trainer(other).run();
  c.train.steps = 4;
  c.data.tokenizer = other.out + "/step-1";
  EXPECT_THAT(error_of_training(c), HasSubstr("data.tokenizer"));
  c.data.tokenizer = c.out + "/step-2";
  EXPECT_EQ(error_of_training(c), "no error");
}

TEST_F(TrainerTest, NeverOverwritesACompleteCheckpoint) {
  TrainConfig c = config();
  c.train.save_every = 4;
  Trainer(c).run();
  TrainConfig again = c;
  again.train.resume = "never";
  EXPECT_THAT(error_of_training(again), HasSubstr("step-8 is a complete checkpoint"));
  again.train.resume = c.out + "/step-4";
  EXPECT_THAT(error_of_training(again), HasSubstr("step-8 is a later complete checkpoint"));
}

TEST_F(TrainerTest, ResumesFromAFolderNamed) {
  TrainConfig c = config();
  c.train.save_every = 4;
  Trainer first(c);
  first.run();
  TrainConfig other = config("other");
  other.train.resume = c.out + "/step-4";
  Trainer second(other);
  const TrainResult result = second.run();
  EXPECT_EQ(result.checkpoint, other.out + "/step-8");
  expect_same_bits(weights(first.model()), weights(second.model()));

  other.train.resume = dir_ / "nothing";
  EXPECT_THAT(error_of_training(other), HasSubstr("train.resume"));
  other.train.resume = dir_.path();
  EXPECT_THAT(error_of_training(other), HasSubstr("neither a complete checkpoint"));
}

TEST_F(TrainerTest, StartsFromTheWeightsOfAnInitFolder) {
  TrainConfig c = config();
  Trainer first(c);
  first.run();
  TrainConfig next = config("next");
  next.init = c.out;
  Trainer second(next);
  second.prepare();
  auto before = weights(first.model()), after = weights(second.model());
  before.pop_back();  // usage begins anew
  after.pop_back();
  expect_same_bits(before, after);
  EXPECT_EQ(second.tokenizer().file_bytes(), first.tokenizer().file_bytes());
  EXPECT_EQ(second.prepare().first_step, 0);
}

TEST_F(TrainerTest, RefusesADamagedCheckpoint) {
  TrainConfig c = config();
  c.train.steps = 2;
  Trainer(c).run();
  const std::string path = c.out + "/step-2/optimizer/dense.safetensors";
  const auto file = io::posix().open(path, io::OpenMode::kReadWrite);
  const std::byte flipped[] = {std::byte{0x5a}};
  file->pwrite(flipped, file->size() - 3);
  c.train.steps = 4;
  EXPECT_THAT(error_of_training(c), HasSubstr("dense.safetensors"));
}

}  // namespace
}  // namespace memlayers
