-- DNO that trains an adapter: as dno, but the model's weights stay as they are
--
-- Source: Rosset et al. 2024 (arXiv 2404.03715), Algorithm 1 and Eq. 8, as dno; Hu et al. 2021
-- (arXiv 2106.09685) for the adapter: every linear layer of the decoder gets a matrix of rank 8 on top.
-- Gradients, the optimizer's state and checkpoints are of those alone. A checkpoint is a directory that PEFT
-- loads; `dno merge` makes a whole model of it.
--
-- Where this differs from dno:
--   lr          1e-3         seven times as much: an adapter has fewer weights to move, and B begins at 0
-- Where this differs from the adapter's paper:
--   targets     all linear layers; the paper has attention's alone
-- For a larger model: base = "bfloat16" holds the frozen weights in half the memory, "q8_0" in a quarter.
local dno = require "dno"

return dno.experiment {
  model = "embedded:geometry",
  prompts = {
    train = "embedded:geometry/train.jsonl",
    validation = "embedded:geometry/validation.jsonl",
    test = "embedded:geometry/test.jsonl",
  },
  iterations = 4,
  samples = 5,
  sampler = { "nucleus", temperature = 1.0, top_p = 1.0, max_tokens = 80 },

  oracle = { "verifier" },
  min_margin = 0.3,

  loss = { "dno", beta = 1.0, c = 6.0 },
  reference = "previous", -- the adapter as it was at the iteration's start
  lora = { r = 8, alpha = 16, targets = { "all-linear" }, base = "float32" },
  lr = 1e-3,
  batch_size = 16,
  batch_by = "prompt",
  checkpoint_every = 100,

  evaluate = { oracle = "verifier", temperature = 0 },
}
