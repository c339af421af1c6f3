package class

import (
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// DefaultMode lets a container that is not root read: the driver's files belong to
// root and fsGroup does not reach them.
const DefaultMode = 0o444

// parseMode reads a mode as chmod does: always octal.
func parseMode(text string) (int32, error) {
	digits := strings.TrimPrefix(text, "0o")
	mode, err := strconv.ParseUint(digits, 8, 32)
	if err != nil || len(digits) < 3 || len(digits) > 4 || mode > 0o777 {
		return 0, fmt.Errorf(`%q is not an octal mode from "0000" to "0777", such as "0400"`, Shorten(text))
	}
	return int32(mode), nil
}

// parseStrictMode is parseMode, and refuses what became of a mode on its way. YAML tools
// read 0400 as a number and write 256, quoted or not. A zero in front says that a text is
// octal; without one it is, too, when it looks like a mode: 400, 444 and 640 do, 256 does
// not.
// instead is the mode that was meant, where that is clear.
func parseStrictMode(text string) (mode int32, instead string, err error) {
	mode, err = parseMode(text)
	meant, ok := rewritten(text)
	switch {
	case !ok:
		return mode, "", err
	case err != nil:
		return 0, fmt.Sprintf("%04o", meant), fmt.Errorf(`%q is the decimal number that YAML tools make of %04o; write "%04o", in quotes`, text, meant, meant)
	}
	return 0, fmt.Sprintf("%04o", meant), fmt.Errorf(`%q is the decimal number that YAML tools make of %04o; write "%04o", in quotes, or "%04o" if that is meant`, text, meant, meant, mode)
}

// rewritten is the mode of which text is the decimal number, unless the octal mode that
// text is, too, looks like one.
func rewritten(text string) (int32, bool) {
	if octal, err := parseMode(text); err == nil && isUsual(octal) && isSane(octal) {
		return 0, false
	}
	mode, err := strconv.ParseInt(text, 10, 32)
	return int32(mode), err == nil && text[0] >= '1' && text[0] <= '9' && mode <= 0o777 && isUsual(int32(mode))
}

// isSane tells whether the owner may read, the group may do no more than the owner,
// and others no more than the group.
func isSane(mode int32) bool {
	owner, group, others := mode>>6, mode>>3&7, mode&7
	return mode > 0 && owner&4 != 0 && group&^owner == 0 && others&^group == 0
}

// isUsual tells the modes that people write: the owner may read and others do no more, and
// without reading there is nothing else.
func isUsual(mode int32) bool {
	owner, group, others := mode>>6, mode>>3&7, mode&7
	reads := func(may int32) bool { return may == 0 || may&4 != 0 }
	return owner&4 != 0 && (group|others)&^owner == 0 && reads(group) && reads(others)
}

// parsePermission reads octal, as chmod does. To YAML a number without a zero in
// front is decimal. The mode shows which of the two its author meant: not the one
// with more rights for others than for the owner.
func parsePermission(text string, isQuoted bool, usual int32) (mode int32, warning string, err error) {
	if strings.Trim(text, "0") == "" {
		return usual, fmt.Sprintf("%q is no permission at all; the usual %04o is taken", text, usual), nil
	}
	mode, err = parseMode(text)
	if err == nil && (isQuoted || text[0] == '0') {
		return mode, "", nil
	}
	meant, ok := rewritten(text)
	if err == nil && isSane(mode) && ok {
		return mode, fmt.Sprintf("%s is decimal to YAML and is taken as octal; write \"%04o\", or \"%04o\" if that is meant, of which YAML tools make %s", text, mode, meant, text), nil
	}
	if err == nil && isSane(mode) {
		return mode, fmt.Sprintf("%s is decimal to YAML and is taken as octal; write \"%04o\"", text, mode), nil
	}
	decimal, bad := strconv.ParseInt(text, 10, 32)
	if bad != nil || isQuoted || text[0] == '0' || decimal > 0o777 || !isSane(int32(decimal)) {
		return usual, "", fmt.Errorf(`%q is not an octal mode from "0001" to "0777", such as "0400"`, Shorten(text))
	}
	return int32(decimal), fmt.Sprintf("%s is decimal to YAML and no octal mode that makes sense, so it is taken as decimal; write \"%04o\"", text, decimal), nil
}

// isQuoted tells whether a text cannot be anything else to YAML.
func isQuoted(node *yaml.Node) bool {
	return node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
}
