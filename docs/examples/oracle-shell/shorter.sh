#!/bin/sh
# The shorter text wins, an empty one never: an oracle in POSIX sh and awk for the oracle "command".
#
# From dno comes one JSON object a line: {"id", "prompt", "answer", "a", "b"}. Back goes one a line:
# {"id", "p"}, p the probability that a is better, or {"id", "abstain"} with a reason.
#
# Lengths are in bytes, an escape of JSON (\n, \", \u0000) counting as one. Within a JSON string each
# quote has a backslash before it, so  "a":"  is found nowhere but at the key itself.
LC_ALL=C
export LC_ALL

# A process a line: some awks read ahead in a pipe, and dno waits for each answer.
while IFS= read -r line; do
  printf '%s\n' "$line" | awk '
    # text is the JSON string of a key, as written; missing is set where there is none.
    function text(key,   at, rest, end) {
      at = index($0, "\"" key "\":\"")
      if (at == 0) { missing = key; return "" }
      rest = substr($0, at + length(key) + 4)
      for (end = 1; end <= length(rest) && substr(rest, end, 1) != "\""; end++)
        if (substr(rest, end, 1) == "\\") end++
      return substr(rest, 1, end - 1)
    }
    function size(s) {
      gsub(/\\(u[0-9a-fA-F][0-9a-fA-F][0-9a-fA-F][0-9a-fA-F]|.)/, "x", s)
      return length(s)
    }
    {
      id = text("id"); a = size(text("a")); b = size(text("b"))
      if (missing != "") { printf "{\"id\":\"%s\",\"abstain\":\"the question has no %s\"}\n", id, missing; exit }
      p = 0.5
      if (a == 0 || b == 0) { if (a > b) p = 1; if (b > a) p = 0 }
      else if (a < b) p = 1
      else if (a > b) p = 0
      printf "{\"id\":\"%s\",\"p\":%s}\n", id, p
    }'
done
