-- DNO-Prct: ranked completions, a teacher's among them, and the DPO loss against the previous policy
--
-- Source: Rosset et al. 2024 (arXiv 2404.03715), Algorithm 2 and Section 5.1.
--
-- As in the paper: K = 5, the teacher's completion is ranked with the policy's own, pairs of large margin
-- only, reference = the policy at the iteration's start, one epoch, the best iteration is chosen on
-- validation.
-- Where this differs:
--   teacher     in half of the groups; the paper's is in all. On this task answers of the policy's own
--               level teach more, and half measured no worse
--   opponents   "own": win rates are against the policy. Algorithm 2 as printed counts the teacher's
--               answer as an opponent too: opponents = "all"
--   margin      0.3 between win rates that leave the pair itself out; the paper's is 2 points of a
--               rubric of 6, and 1 where the positive is the policy's own
--   replay      none; the paper keeps up to 30 % of the last iteration's pairs
--   beta        0.5 for answers of a few dozen tokens; the paper has 0.1 or 0.05
--   lr, batch   1e-4, 32 for a small model; the paper has 5e-5, 64
--   sampling    temperature 1, all tokens; the paper has 0.7 and top-p 0.95
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
  teacher = { "file", path = "embedded:geometry/teacher.jsonl" },

  oracle = { "verifier" },
  min_margin = 0.3,

  loss = { "dpo", beta = 0.5 },
  reference = "previous",
  lr = 1e-4,
  epochs = 1,
  batch_size = 32,

  evaluate = { oracle = "verifier", temperature = 0 },

  mix = function(prompt, own, teacher, t)
    return own .. dno.when(dno.chance(0.5), teacher)
  end,
}
