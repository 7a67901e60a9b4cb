-- Each function is one test of lib/dno.lua; it fails by raising an error.
local dno = require "dno"

local function equal(have, want)
  if have ~= want then
    error("want " .. tostring(want) .. ", have " .. tostring(have), 2)
  end
end

-- curve makes a history whose start policy and iterations have these win rates.
local function curve(start, ...)
  local history = { [0] = { win_rate = start } }
  for i, rate in ipairs { ... } do history[i] = { win_rate = rate } end
  return history
end

local tests = {}

function tests.experiment_returns_its_table()
  local settings = { model = "m" }
  equal(dno.experiment(settings), settings)
end

function tests.split_names_a_part()
  local s = dno.split(2, 4)
  equal(s.split, 2)
  equal(s.of, 4)
  equal(s.count, nil)
  equal(dno.split(2, 4, 100).count, 100)
end

function tests.take_names_a_count()
  equal(dno.take(50).count, 50)
  equal(dno.take(50).of, nil)
end

function tests.no_plateau_while_it_rises()
  equal(dno.plateau(curve(nil, 0.6, 0.7, 0.8), "win_rate", 2), false)
end

function tests.a_plateau_is_patience_iterations_without_a_new_best()
  equal(dno.plateau(curve(nil, 0.6, 0.8, 0.7), "win_rate", 2), false)
  equal(dno.plateau(curve(nil, 0.6, 0.8, 0.7, 0.8), "win_rate", 2), true)
end

function tests.the_start_policy_is_one_to_rise_above()
  equal(dno.plateau(curve(0.9, 0.5, 0.6), "win_rate", 2), true)
  equal(dno.plateau(curve(nil, 0.5, 0.6), "win_rate", 2), false)
end

function tests.no_plateau_before_the_first_iteration()
  equal(dno.plateau(curve(0.5), "win_rate", 1), false)
  equal(dno.plateau({}, "win_rate", 1), false)
end

function tests.a_plateau_of_an_unknown_figure_is_an_error()
  local ok, message = pcall(dno.plateau, curve(nil, 0.5), "winrate", 2)
  equal(ok, false)
  equal(message:find("iteration 1 has no figure 'winrate'", 1, true) ~= nil, true)
end

function tests.chance_follows_its_probability()
  local hits = 0
  for _ = 1, 1000 do
    if dno.chance(0.25) then hits = hits + 1 end
  end
  -- 250 expected, standard deviation sqrt(1000 * 0.25 * 0.75) = 13.7; four of them either way.
  equal(hits > 195 and hits < 305, true)
  equal(dno.chance(0), false)
  equal(dno.chance(1), true)
end

function tests.lists_join_in_order()
  local a, b, c = {}, {}, {}
  local joined = dno.list { a } .. dno.list { b, c }
  equal(#joined, 3)
  equal(joined[1], a)
  equal(joined[3], c)
end

function tests.joining_leaves_both_lists_alone()
  local one, two = dno.list { {} }, dno.list { {} }
  local _ = one .. two
  equal(#one, 1)
  equal(#two, 1)
end

function tests.when_is_the_list_or_an_empty_one()
  local list = dno.list { {} }
  equal(dno.when(true, list), list)
  equal(#dno.when(false, list), 0)
  equal(#(dno.when(false, list) .. dno.when(true, list)), 1)
end

function tests.only_lists_can_be_joined()
  equal(pcall(function() return dno.list {} .. "text" end), false)
end

return tests
