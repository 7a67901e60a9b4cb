-- DNO with soft labels: on-policy iterations of Eq. 8, the default of dno
--
-- Source: Rosset et al. 2024 (arXiv 2404.03715), Algorithm 1 and Eq. 8. In each iteration the policy
-- answers new prompts, an oracle compares the answers, and the policy is trained on the differences of
-- their win rates, measured against itself.
--
-- Where the paper says what a default is (its experiments are Algorithm 2; see dno-prct):
--   samples     5            the paper's K
--   reference   "previous"   the policy at the iteration's start, as in both algorithms
--   iterations  4            the paper has 3, and 6 with more data
-- Where this differs:
--   loss        soft labels sigmoid(c * (r1 - r2)); the paper derives them and trains with hard ones
--   beta, c     1, 6         answers here have a few dozen tokens; with the paper's beta of 0.1 or less
--                            the margin would grow to tens of nats before the loss lets go
--   lr          1.5e-4       a small model, all weights; the paper has 5e-5
--   batch_size  16           the paper has 64, over twelve times as many prompts
--   batch_by    "prompt"     a prompt's pairs stay together, so that each completion goes through the model
--                            once for all of them
--   checkpoint_every  100    the default of 20 would be several a second
--   sampler     temperature 1, all tokens: the win rates are then those of the policy itself; the
--               paper draws at temperature 0.7 and top-p 0.95
--   min_margin  0.3          of win rates in [0, 1]; the paper's is 1 or 2 points of a rubric of 6
--   teacher     none         the paper mixes one in; see dno-prct
-- Run this with `dno run`; or copy it, edit it, and `dno run my.lua`.
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
  reference = "previous",
  lr = 1.5e-4,
  batch_size = 16,
  batch_by = "prompt",
  checkpoint_every = 100,

  evaluate = { oracle = "verifier", temperature = 0 },
}
