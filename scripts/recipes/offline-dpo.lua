-- Offline DPO: one round of pairs of the start policy, the baseline that DNO is measured against
--
-- Source: Rafailov et al. 2023 (arXiv 2305.18290), Eq. 7; as a baseline in Rosset et al. 2024
-- (arXiv 2404.03715), Section 5 and Table 1.
--
-- All prompts are answered once, by the policy as it starts, and it is trained on these pairs alone:
-- what it becomes on the way is never asked. It takes as many prompts and comparisons as the four
-- iterations of dno, so that only the iterations differ.
-- Where this differs from the paper's baseline:
--   pairs       of the policy's own answers; the paper pairs a stronger model's answer with one of them.
--               With a teacher: uncomment both parts below
--   epochs      1; the paper trains for up to 4
--   beta, lr    0.5, 1e-4, as in dno-prct
local dno = require "dno"

return dno.experiment {
  model = "embedded:geometry",
  prompts = {
    train = "embedded:geometry/train.jsonl",
    validation = "embedded:geometry/validation.jsonl",
    test = "embedded:geometry/test.jsonl",
  },
  iterations = 1,
  samples = 5,
  sampler = { "nucleus", temperature = 1.0, top_p = 1.0, max_tokens = 80 },
  -- teacher = { "file", path = "embedded:geometry/teacher.jsonl" },

  oracle = { "verifier" },
  min_margin = 0.3,

  loss = { "dpo", beta = 0.5 },
  reference = "initial",
  lr = 1e-4,
  epochs = 1,
  batch_size = 32,

  evaluate = { oracle = "verifier", temperature = 0 },

  -- Only pairs with the teacher's answer in them:
  -- pairs = function(game)
  --   local out = {}
  --   for _, pair in ipairs(game:pairs()) do
  --     if pair.class == "teacher_student" or pair.class == "student_teacher" then out[#out + 1] = pair end
  --   end
  --   return out
  -- end,
}
