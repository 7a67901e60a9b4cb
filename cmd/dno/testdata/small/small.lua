-- Two iterations on forty prompts: about a second.
local dno = require "dno"

return dno.experiment {
  model = "embedded:geometry",
  prompts = { train = "train.jsonl", validation = "validation.jsonl", test = "test.jsonl" },
  iterations = 2,
  samples = 4,
  oracle = { "verifier" },
  min_margin = 0.3,
  batch_size = 8,
  evaluate = { oracle = "verifier", temperature = 0, max_tokens = 64 },
}
