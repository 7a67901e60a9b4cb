package verifier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/dno-project/dno/sdk"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// What is read at most of JSON, a schema's or a completion's.
const (
	maxSchema   = 256 << 10 // bytes of a schema
	maxNesting  = 64        // of objects and arrays
	maxDigits10 = 400       // digits, and the exponent, of a number: comparisons are exact
)

// configureSchema is the check "json_schema": the completion is one JSON value, white space around it
// aside, and valid against the schema. The schema is the file of the setting, or else each prompt's
// metadata "schema": an object, true or false, or a text that holds one.
//
// Drafts 4 to 2020-12 by "$schema", without it 2020-12; "format" is checked up to draft 7 and is an
// annotation after that. A
// "$ref" can name the schema itself and the drafts' own meta-schemas; nothing is loaded from a file or
// the network. JSON with a member twice, deeper than 64, or with a number of more than 400 digits is not
// valid.
func configureSchema(s sdk.Settings) (check, error) {
	if path := s.String("schema", ""); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, sdk.Errorf(sdk.CodeUsage, "setting \"schema\": %w", err)
		}
		schema, err := readSchema(text)
		if err != nil {
			return nil, sdk.Errorf(sdk.CodeUsage, "setting \"schema\": %s: %w", path, err).
				WithHint("it has to be one JSON Schema whose $ref stay within it")
		}
		return func(sdk.Prompt) (grader, string, error) { return validator(schema), "", nil }, nil
	}
	return func(p sdk.Prompt) (grader, string, error) {
		given, ok := p.Metadata["schema"]
		if !ok || given == nil {
			return nil, "the prompt has no metadata \"schema\", and there is no setting of that name", nil
		}
		text, ok := given.(string)
		if !ok {
			b, err := json.Marshal(given)
			if err != nil {
				return nil, "", sdk.Errorf(sdk.CodeInternal, "write the schema of prompt %q: %w", p.ID, err)
			}
			text = string(b)
		}
		schema, err := readSchema([]byte(text))
		if err != nil {
			return nil, fmt.Sprintf("the prompt's metadata \"schema\" is not a JSON Schema: %v", err), nil
		}
		return validator(schema), "", nil
	}, nil
}

func validator(schema *jsonschema.Schema) grader {
	return func(text string) grade {
		v, err := readJSON([]byte(text))
		return rightOrWrong(err == nil && schema.Validate(v) == nil)
	}
}

// noLoader refuses what a $ref names outside of its schema.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, errors.New("nothing is loaded from outside of the schema")
}

// schemaURL is what the schema is called in error messages.
const schemaURL = "file:///schema.json"

func readSchema(text []byte) (*jsonschema.Schema, error) {
	if len(text) > maxSchema {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", len(text), maxSchema)
	}
	doc, err := readJSON(text)
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return nil, err
	}
	return c.Compile(schemaURL)
}

// readJSON reads one value within the limits, numbers as they are written.
func readJSON(text []byte) (any, error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(text))
}

// checkJSON goes through the tokens before anything is built from them.
func checkJSON(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	type level struct {
		members map[string]bool // of an object; nil for an array
		isKey   bool            // the next token is a member's name
	}
	var open []level
	for {
		t, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil // what is missing, and what is too much, the decoder itself says
		}
		if err != nil {
			return err
		}
		top := len(open) - 1
		if name, ok := t.(string); ok && top >= 0 && open[top].isKey {
			if open[top].members[name] {
				return fmt.Errorf("the member %.40q stands twice", name)
			}
			open[top].members[name], open[top].isKey = true, false
			continue
		}
		switch t := t.(type) {
		case json.Delim:
			switch t {
			case '{', '[':
				if len(open) == maxNesting {
					return fmt.Errorf("it is nested more than %d deep", maxNesting)
				}
				l := level{}
				if t == '{' {
					l = level{map[string]bool{}, true}
				}
				open = append(open, l)
				continue // a value ends at its bracket
			default:
				open = open[:top]
				top--
			}
		case json.Number:
			if err := checkNumber(string(t)); err != nil {
				return err
			}
		}
		if top >= 0 && open[top].members != nil {
			open[top].isKey = true
		}
	}
}

func checkNumber(text string) error {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	e := 0
	if exponent != "" {
		var err error
		if e, err = strconv.Atoi(exponent); err != nil {
			e = maxDigits10 + 1
		}
	}
	if len(mantissa) > maxDigits10 || e > maxDigits10 || e < -maxDigits10 {
		return fmt.Errorf("the number %.20s has more than %d digits", text, maxDigits10)
	}
	return nil
}
