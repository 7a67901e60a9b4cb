package serve

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/go-plugin"

	"github.com/dno-project/dno/sdk/wire"
)

// identify has the plugin answer the host with a certificate of [wire.Certificate], which is made faster
// than go-plugin's own. go-plugin leaves the certificate of a TLSProvider out of its handshake: it is
// put in on the line's way to standard output.
func identify(config *plugin.ServeConfig) error {
	given := os.Getenv(wire.CertificateEnv)
	if given == "" {
		return nil
	}
	host := x509.NewCertPool()
	if !host.AppendCertsFromPEM([]byte(given)) {
		return errors.New("the host's certificate in " + wire.CertificateEnv + " cannot be read")
	}
	own, err := wire.Certificate()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	config.TLSProvider = func() (*tls.Config, error) {
		return &tls.Config{
			Certificates: []tls.Certificate{own},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: host,
			RootCAs: host, ServerName: "localhost", // of the host's generator
			MinVersion: tls.VersionTLS12,
		}, nil
	}
	stdout := os.Stdout
	os.Stdout = w // until go-plugin, its handshake printed, takes it for the plugin's prints
	go completeHandshake(stdout, r, base64.RawStdEncoding.EncodeToString(own.Certificate[0]))
	return nil
}

// completeHandshake copies lines, and puts the certificate where the handshake has none:
//
//	1|1|unix|/path/of/the/socket|grpc|
func completeHandshake(w io.Writer, r io.Reader, certificate string) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		done := len(fields) >= 6 && fields[4] == string(plugin.ProtocolGRPC) && fields[5] == ""
		if done {
			fields[5] = certificate
			line = strings.Join(fields, "|") + "\n"
		}
		if _, failed := io.WriteString(w, line); failed != nil || err != nil {
			return // nobody is there to read it
		}
		if done {
			_, _ = io.Copy(w, lines) // what was meant for standard output before it was replaced again
			return
		}
	}
}
