# help.awk: lists a Makefile's targets with the words behind their `##`, grouped by the `##@` lines.
BEGIN { FS = ":.*## " }
/^##@ / { printf "\n%s\n", substr($0, 5) }
/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $1, $2 }
