#!/bin/sh
# Counts words of the comments that describe a thing where they could name it, per 1,000
# words and package. It is for a reader to look at and fails nothing: a limit on words
# would breed worse prose. docs/architecture.md has the words to use instead.
cd "$(dirname "$0")/.." || exit
git ls-files '*.go' ':!*_test.go' ':!e2e' | xargs awk '
  match($0, /\/\/ ?/) && $0 !~ /https?:\/\/[^ ]*$/ && $0 !~ /\/\/(nolint|go:)/ {
    folder = FILENAME; if (!sub("/[^/]*$", "", folder)) folder = "."
    text = tolower(substr($0, RSTART + RLENGTH))
    n = split(text, words, /[^a-z'"'"']+/)
    for (i = 1; i <= n; i++) if (words[i] != "") {
      all[folder]++
      if (words[i] ~ /^(who|whose|whom|whoever|nobody|somebody|anybody)$/) person[folder]++
      if (words[i] ~ /^(what|that)$/) relative[folder]++
    }
  }
  END {
    for (f in all) {
      printf "%-24s %6d words %6.1f who, nobody ... %6.1f what, that\n", f, all[f], 1000 * person[f] / all[f], 1000 * relative[f] / all[f]
      total += all[f]; p += person[f]; r += relative[f]
    }
    printf "%-24s %6d words %6.1f who, nobody ... %6.1f what, that\n", "~ all", total, 1000 * p / total, 1000 * r / total
  }' | sort
