package serve

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk/wire"
)

func TestTheHandshakeGetsTheCertificate(t *testing.T) {
	for name, c := range map[string]struct{ printed, want string }{
		"a handshake without one":    {"1|1|unix|/s|grpc|\n", "1|1|unix|/s|grpc|CERT\n"},
		"one with a part more":       {"1|1|unix|/s|grpc||true\n", "1|1|unix|/s|grpc|CERT|true\n"},
		"one that has its own":       {"1|1|unix|/s|grpc|own\n", "1|1|unix|/s|grpc|own\n"},
		"prints before and after it": {"hello\n1|1|unix|/s|grpc|\n1|1|unix|/s|grpc|\n", "hello\n1|1|unix|/s|grpc|CERT\n1|1|unix|/s|grpc|\n"},
		"a line without its end":     {"hello", "hello"},
		"nothing":                    {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			completeHandshake(&out, strings.NewReader(c.printed), "CERT")
			if out.String() != c.want {
				t.Errorf("have %q, want %q", out.String(), c.want)
			}
		})
	}
}

func TestAHostsCertificateThatCannotBeRead(t *testing.T) {
	cookie := wire.Handshake()
	cmd := exec.Command(os.Args[0], "test-plugin")
	cmd.Env = []string{cookie.MagicCookieKey + "=" + cookie.MagicCookieValue, wire.CertificateEnv + "=junk"}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "serve weather: the host's certificate in PLUGIN_CLIENT_CERT cannot be read") {
		t.Errorf("%v: %s", err, out)
	}
}
