package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// apiError is an error as the API tells it.
type apiError struct {
	status int
	body   errorBody
}

type errorBody struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (e *apiError) Error() string { return e.body.Message }

// refusal is an error of a status that is not about one field.
func refusal(status int, kind, code, format string, args ...any) *apiError {
	e := &apiError{status, errorBody{Message: fmt.Sprintf(format, args...), Type: kind}}
	if code != "" {
		e.body.Code = &code
	}
	return e
}

// The types of errors that the API knows.
const (
	invalid = "invalid_request_error"
	busy    = "rate_limit_error"
	fault   = "server_error"
)

// wrong is an error of a request's field.
func wrong(param, format string, args ...any) *apiError {
	e := refusal(http.StatusBadRequest, invalid, "", format, args...)
	e.body.Param = &param
	return e
}

// coded gives an error a code.
func (e *apiError) coded(code string) *apiError {
	e.body.Code = &code
	return e
}

// json is the error's body.
func (e *apiError) json() []byte {
	data, err := json.Marshal(map[string]errorBody{"error": e.body})
	if err != nil {
		panic(err) // strings always encode
	}
	return data
}
