-- dno: the helpers of scripts. Each is a pure function; see the architecture page for what the
-- functions of a script are handed.
local dno = {}

-- experiment marks what a script returns: return dno.experiment { ... }
function dno.experiment(settings)
  return settings
end

-- split selects the t-th of n disjoint parts of the training prompts; with count, the first of it.
function dno.split(t, n, count)
  return { split = t, of = n, count = count }
end

-- take selects the first count training prompts.
function dno.take(count)
  return { count = count }
end

-- plateau tells whether the figure called key has not risen above its best for the last `patience`
-- iterations. The start policy, history[0], counts as one to rise above.
function dno.plateau(history, key, patience)
  local best, since = nil, 0
  for i = 0, #history do
    local value = history[i] and history[i][key]
    if i > 0 and value == nil then
      error("dno.plateau: iteration " .. i .. " has no figure '" .. tostring(key) .. "'", 2)
    end
    if best == nil or value > best then
      best, since = value, 0
    else
      since = since + 1
    end
  end
  return since >= patience
end

-- chance is true with probability p: the same in every run of the same seed, for the same prompt.
function dno.chance(p)
  return math.random() < p
end

-- list makes a list of completions that can be joined: dno.list { a, b } .. own
local lists = { __metatable = "a list of completions" }

function dno.list(items)
  return setmetatable(items, lists)
end

function lists.__concat(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    error("only lists of completions can be joined with ..", 2)
  end
  local out = {}
  for _, completion in ipairs(a) do out[#out + 1] = completion end
  for _, completion in ipairs(b) do out[#out + 1] = completion end
  return dno.list(out)
end

-- when is the list where the condition holds, and an empty list where it does not.
function dno.when(condition, list)
  if condition then return list end
  return dno.list {}
end

return dno
