local dno = require "dno"

return dno.experiment {
  model = "tiny",
  prompts = { train = "train.jsonl", validation = "validation.jsonl", test = "test.jsonl" },
  iterations = 2,
  samples = 3,
  sampler = { "nucleus", max_tokens = 12 },
  oracle = { "command", path = "judge.sh" },
  min_margin = 0.01,
  batch_size = 4,
  lr = 1e-2,
  checkpoint_every = 2,
  evaluate = { oracle = { "command", path = "judge.sh" }, temperature = 0, max_tokens = 12 },
}
