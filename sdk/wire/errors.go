package wire

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/pluginpb"
)

// toStatus makes a gRPC status of an error; its code and hint travel as a detail.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	// Without the detail the host would take the error for one of the transport, so it is always there.
	detail := &pluginpb.Error{}
	var e *sdk.Error
	if errors.As(err, &e) {
		detail.Code, detail.Hint = int32(e.Code), clean(e.Hint)
	}
	st := status.New(codes.Unknown, clean(err.Error()))
	if detailed, err := st.WithDetails(detail); err == nil {
		st = detailed
	}
	return st.Err()
}

// fromStatus is the inverse of toStatus; a status without our detail comes from the transport.
func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	remote := &remoteError{text: st.Message()}
	for _, d := range st.Details() {
		if detail, ok := d.(*pluginpb.Error); ok {
			if detail.GetCode() == 0 {
				return remote
			}
			return &sdk.Error{Code: sdk.Code(detail.GetCode()), Hint: detail.GetHint(), Err: remote}
		}
	}
	switch st.Code() {
	case codes.Canceled: // by this side's context: a deadline of the plugin's own comes with the detail
		remote.cause = context.Canceled
	case codes.DeadlineExceeded:
		remote.cause = context.DeadlineExceeded
	case codes.Unavailable:
		remote.cause = ErrGone
	case codes.ResourceExhausted:
		return (&sdk.Error{Code: sdk.CodePlugin, Err: remote}).WithHint(
			"a message between dno and a plugin is at most %d MiB: use smaller batches or fewer completions", MaxMessage>>20)
	case codes.Unimplemented:
		return (&sdk.Error{Code: sdk.CodePlugin, Err: remote}).WithHint("the plugin does not serve what its manifest declares")
	}
	return remote
}

// remoteError has the other side's words and a cause that errors.Is can find on this side.
type remoteError struct {
	text  string
	cause error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.cause }

// malformed is the error of a message that does not decode.
func malformed(field, format string, args ...any) error {
	return sdk.Errorf(sdk.CodePlugin, "field "+field+": "+format, args...)
}

// clean makes text valid UTF-8, which a protobuf string has to be: other bytes become U+FFFD, as in encoding/json.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
