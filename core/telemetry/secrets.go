package telemetry

import (
	"encoding/json"
	"net/url"
	"sort"
	"strings"
	"sync"
)

// Secrets are values that must not be written. The zero value holds none; it is safe for concurrent use.
type Secrets struct {
	mu       sync.RWMutex
	values   map[string]bool
	replacer *strings.Replacer
}

// shortestSecret is the length in bytes below which a value is no secret: taking out every "1"
// would spoil the log and hide nothing.
const shortestSecret = 5

// Add makes the values secret, in the forms in which they may be written: as they are, inside
// JSON text and inside a URL. Values shorter than 5 bytes are left out.
func (s *Secrets) Add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string]bool{}
	}
	for _, v := range values {
		if len(v) < shortestSecret {
			continue
		}
		s.values[v] = true
		s.values[url.QueryEscape(v)] = true
		s.values[url.PathEscape(v)] = true
		if quoted, err := json.Marshal(v); err == nil {
			s.values[string(quoted[1:len(quoted)-1])] = true
		}
	}
	forms := make([]string, 0, len(s.values))
	for v := range s.values {
		forms = append(forms, v)
	}
	// The longest first: a secret may begin with another one.
	sort.Slice(forms, func(i, j int) bool {
		if len(forms[i]) != len(forms[j]) {
			return len(forms[i]) > len(forms[j])
		}
		return forms[i] < forms[j]
	})
	pairs := make([]string, 0, 2*len(forms))
	for _, v := range forms {
		pairs = append(pairs, v, "***")
	}
	s.replacer = strings.NewReplacer(pairs...)
}

// Clean returns text with every secret replaced by ***.
func (s *Secrets) Clean(text string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.replacer == nil {
		return text
	}
	return s.replacer.Replace(text)
}
