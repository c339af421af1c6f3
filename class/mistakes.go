package class

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keymount/keymount/internal/spelling"
)

// ErrRequest wraps mistakes of a class or of the driver's call.
var ErrRequest = errors.New("bad request")

// maxMistakes bounds the mistakes that one error spells out.
const maxMistakes = 20

// mistakes collects the mistakes of a request. It keeps the first maxMistakes and
// counts the rest: a class of a megabyte can have half a million.
type mistakes struct {
	all  []error
	more int
}

func (m *mistakes) add(format string, args ...any) {
	if len(m.all) == maxMistakes {
		m.more++
		return
	}
	m.all = append(m.all, fmt.Errorf(format, args...))
}

func (m *mistakes) count() int { return len(m.all) + m.more }

// err names the class and its mistakes; nil without any.
func (m *mistakes) err(r Request) error {
	if len(m.all) == 0 {
		return nil
	}
	class := fmt.Sprintf("SecretProviderClass %s/%s", Shorten(r.Pod.Namespace), r.Class)
	if len(m.all) == 1 {
		return fmt.Errorf("%w: %s: %w", ErrRequest, class, m.all[0])
	}
	text := strings.ReplaceAll(errors.Join(m.all...).Error(), "\n", "\n  ")
	if m.more > 0 {
		text += fmt.Sprintf("\n  and %d more", m.more)
	}
	return fmt.Errorf("%w: %s has %d mistakes:\n  %s", ErrRequest, class, m.count(), text)
}

// Shorten cuts a text too long for the name of a Kubernetes object, and writes out the
// characters that cannot be seen: the pod's author may have written anything as the
// class's name.
func Shorten(name string) string {
	return spelling.Visible(spelling.CutName(name))
}
